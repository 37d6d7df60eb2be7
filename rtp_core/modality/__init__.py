"""Media planning and features."""
