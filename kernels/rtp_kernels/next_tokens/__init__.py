"""Tokens a step computes, when the step before it drew some of them."""
