"""Removed channels: four networks with half the channels inside their blocks gone, or half of all, against dense."""

import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

import spartax as sx
from experiments.bench.row import Row, compare
from spartax import models, prune, tree


def _gradient(apply):
    return lambda variables, x: jax.grad(lambda x: jnp.sum(apply(variables, x) ** 2))(x)


PASSES = {"forward": lambda apply: apply, "forward and input gradient": _gradient}


def rows(quick: bool) -> list[Row]:
    return [row for name, given in _networks(quick).items() for row in _rows(name, *given, quick)]


def _networks(quick: bool) -> dict[str, tuple[nn.Module, int]]:
    """With their batch of 32 x 32 images; all but the first narrower than in papers, to take a minute together."""
    depth, blocks = (8, 1) if quick else (20, 4)
    stages = [(4,)] * 5 if quick else [(16, 16), (32, 32), (64, 64, 64), (128, 128, 128), (128, 128, 128)]
    return {
        f"ResNet-{depth}": (models.resnet_cifar(depth), 64),
        f"VGG-{sum(map(len, stages)) + 3}-BN of a quarter width": (models.VGG(stages), 32),
        "WRN-10-2": (models.wide_resnet(10, 2), 32),
        f"ViT of width 96 and depth {blocks}": (models.ViT(width=96, depth=blocks, heads=3), 32),
    }


def _rows(name: str, module: nn.Module, batch: int, quick: bool) -> Iterator[Row]:
    x = jax.random.uniform(jax.random.key(0), (2 if quick else batch, 32, 32, 3))
    variables = jax.jit(module.init)(jax.random.key(1), x[:1])
    apply = models.eval_apply(module)
    groups = sx.groups(apply, variables, x)
    scores = prune.group_scores(groups, tree.weights(variables))
    dense = {passes: jax.jit(of(apply)) for passes, of in PASSES.items()}
    inner, everything = _inner(groups), list(scores)
    chosen = {"inside its blocks": inner} if set(inner) < set(everything) else {}
    for what, names in {**chosen, "everywhere": everything}.items():
        removed = prune.select_channels({name: scores[name] for name in names}, 0.5, pooled=False)
        masked = prune.mask_groups(groups, variables, removed)
        small = prune.shrink(apply, masked, x)
        note = f"{small.report.macs[0] / small.report.macs[1]:.2f}x fewer multiply-adds"
        for passes, of in PASSES.items():
            pair = {
                f"half the channels {what}": functools.partial(jax.jit(of(small.apply)), small.params, x),
                "dense": functools.partial(dense[passes], variables, x),
            }
            yield compare(f"{name}, {passes}", pair, repeats=3 if quick else 20, note=note)


def _inner(groups: dict) -> list[str]:
    """Groups fed by one weight: no residual sum runs through them."""
    return [n for n, g in groups.items() if not g.frozen and sum(m.role == "output" for m in g.members) == 1]
