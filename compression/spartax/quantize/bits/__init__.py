"""Sensitivities: what each weight loses on each grid. One file, one factory; the file name is its name."""
