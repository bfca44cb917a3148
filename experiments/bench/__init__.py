"""Benchmarks: one file each, found by file name; `python -m experiments.bench` runs them."""
