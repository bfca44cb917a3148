"""Networks made robust here, from random weights, on CIFAR-10."""
