"""Compress a robust network eight ways and measure what each costs and what it keeps.

`python -m experiments.quickstart` trains a small network adversarially on the embedded digits (about a minute), then
compresses and measures it. `--data cifar10 --data-dir DIR --weights FILE.safetensors` does the same to a published
network on real images, without training.
"""
