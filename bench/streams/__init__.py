"""An engine and a client for measuring the process between them: see bench/api_process.py."""
