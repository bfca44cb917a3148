"""Which numbers a code can stand for, and which entries share a scale: one grid per file."""
