"""Paged attention of a step whose tables are on the device."""
