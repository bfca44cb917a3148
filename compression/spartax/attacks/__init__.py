"""Attacks: `factory(eps=..., norm=...) -> attack(key, logits_fn, x, y, *, index=None) -> x_adv`, pure and jittable.

`autoattack` runs an ensemble of them over a whole data set and says what was robust. Its members are `Resumable`: plain
attacks that can also be run piece by piece.
"""

from spartax.attacks import losses, threats
from spartax.attacks.apgd import apgd
from spartax.attacks.apgd_targeted import apgd_targeted
from spartax.attacks.autoattack import autoattack
from spartax.attacks.bpda import bpda
from spartax.attacks.cw import cw
from spartax.attacks.fab import fab
from spartax.attacks.fgsm import fgsm
from spartax.attacks.pgd import pgd
from spartax.attacks.result import AutoAttackResult, BrokenBy
from spartax.attacks.resumable import Resumable
from spartax.attacks.square import square
from spartax.attacks.trust import trust

__all__ = [
    "AutoAttackResult",
    "BrokenBy",
    "Resumable",
    "apgd",
    "apgd_targeted",
    "autoattack",
    "bpda",
    "cw",
    "fab",
    "fgsm",
    "losses",
    "pgd",
    "square",
    "threats",
    "trust",
]
