"""Spartax: compress JAX models without losing adversarial robustness, and measure whether you did."""
