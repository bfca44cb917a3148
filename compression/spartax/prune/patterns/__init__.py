"""Which shapes of zeros: one pattern per file."""
