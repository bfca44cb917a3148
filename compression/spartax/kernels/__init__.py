"""Arrays in, arrays out: one operation per file."""
