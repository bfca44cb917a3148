"""Which low-rank method keeps the most accuracy, clean and attacked, at the same bytes? One shot, no fine-tuning."""
