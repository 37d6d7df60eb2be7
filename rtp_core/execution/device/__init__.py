"""Steps on a device that runs beside the host: packed input, captured programs, late results."""
