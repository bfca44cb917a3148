"""Quantization: how few bits may weights and activations have before accuracy under attack is lost?"""
