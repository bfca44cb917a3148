"""How many directions each layer keeps: one rule per file."""
