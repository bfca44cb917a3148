"""In which range activations are rounded, from what calibration shows of them: one observer per file."""
