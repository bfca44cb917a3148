"""Which scale a block of weights gets: one calibration per file."""
