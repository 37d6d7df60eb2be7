"""Counters, snapshots and structured logs."""
