"""Parts of `bench/gpu_engine.py`."""
