"""Which weights matter: one criterion per file, `Criterion` records."""
