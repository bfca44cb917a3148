"""Experiments: each is one command, and its results are generated."""
