"""Attacks: `factory(eps=..., norm=...) -> attack(key, logits_fn, x, y, *, index=None) -> x_adv`, pure and jittable."""

from spartax.attacks import losses, threats
from spartax.attacks.fgsm import fgsm
from spartax.attacks.pgd import pgd

__all__ = ["fgsm", "losses", "pgd", "threats"]
