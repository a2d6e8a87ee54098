"""Benchmarks: figures that a sceptic can run. `python -m bench.NAME`."""
