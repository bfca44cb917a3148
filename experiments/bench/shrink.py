"""Removed channels: ResNet-20 with half the channels inside its blocks gone, or half of all, against dense."""

import functools

import jax
import jax.numpy as jnp

import spartax as sx
from experiments.bench.row import Row, compare
from spartax import models, prune, tree


def rows(quick: bool) -> list[Row]:
    batch, depth = (2, 8) if quick else (64, 20)
    module, x = models.resnet_cifar(depth), jax.random.uniform(jax.random.key(0), (batch, 32, 32, 3))
    variables = jax.jit(module.init)(jax.random.key(1), x[:1])
    apply = models.eval_apply(module)
    groups = sx.groups(apply, variables, x)
    scores = prune.group_scores(groups, tree.weights(variables))
    found = []
    for what, chosen in {"inside its blocks": _inner(groups), "everywhere": list(scores)}.items():
        removed = prune.select_channels({name: scores[name] for name in chosen}, 0.5, pooled=False)
        masked = prune.mask_groups(groups, variables, removed)
        small = prune.shrink(apply, masked, x)
        note = f"{small.report.macs[0] / small.report.macs[1]:.2f}x fewer multiply-adds"
        for passes, of in {"forward": lambda f: f, "forward and input gradient": _gradient}.items():
            pair = {
                f"half the channels {what}": functools.partial(jax.jit(of(small.apply)), small.params, x),
                "dense": functools.partial(jax.jit(of(apply)), variables, x),
            }
            found.append(compare(f"ResNet-{depth}, {passes}", pair, repeats=3 if quick else 20, note=note))
    return found


def _inner(groups: dict) -> list[str]:
    """Groups fed by one weight: no residual sum runs through them."""
    return [n for n, g in groups.items() if not g.frozen and sum(m.role == "output" for m in g.members) == 1]


def _gradient(apply):
    return lambda variables, x: jax.grad(lambda x: jnp.sum(apply(variables, x) ** 2))(x)
