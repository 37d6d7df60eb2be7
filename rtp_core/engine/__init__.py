"""Assembly, the step loop, in-process engines."""
