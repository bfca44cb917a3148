"""Which low-rank method keeps the most accuracy, clean and attacked, at the same bytes?"""
