"""Recipes: a robust network, compressed, and made robust again."""
