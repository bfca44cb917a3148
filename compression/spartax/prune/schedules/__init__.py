"""When pruning happens: one schedule per file, `Schedule` records."""
