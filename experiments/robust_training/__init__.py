"""Networks made robust here from random weights, and recipes that compress robust networks."""
