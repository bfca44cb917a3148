"""Which code an entry gets: one rounding per file."""
