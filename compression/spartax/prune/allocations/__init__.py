"""How many weights each layer keeps: one allocation per file."""
