"""Small networks with random weights, and what must hold when some of their channels are removed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import spartax as sx
from spartax import models, prune, tree

NUMBERS = ("NHWC", "HWIO", "NHWC")


def conv(x, kernel, padding="SAME", **options):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NUMBERS, **options)


def normal(*shapes, seed=0):
    """`{"w0": ..., "w1": ...}` of these shapes, no entry near zero."""
    rng = np.random.default_rng(seed)
    draws = [rng.choice((-1, 1), size=s) * rng.uniform(0.1, 1.0, size=s) for s in shapes]
    return {f"w{i}": jnp.asarray(w, jnp.float32) for i, w in enumerate(draws)}


def variables(module, x):
    """Collections of a Flax module, drawn without running its initializers; vectors are positive (variances)."""
    shapes, treedef = jax.tree.flatten(jax.eval_shape(module.init, jax.random.key(0), x))
    rng = np.random.default_rng(1)
    return treedef.unflatten([_drawn(rng, s.shape) for s in shapes])


def _drawn(rng, shape):
    size = np.sqrt(2 / max(np.prod(shape[:-1]), 1))
    return jnp.asarray(rng.uniform(0.2, 1.0, shape) if len(shape) == 1 else size * rng.normal(size=shape), jnp.float32)


def images(*shape):
    return jnp.asarray(np.random.default_rng(2).uniform(size=shape), jnp.float32)


def pick(groups, share, seed=3):
    """About this share of the channels of every free group, at random, never all."""
    rng = np.random.default_rng(seed)
    free = {name: g for name, g in groups.items() if not g.frozen}
    count = {name: min(max(1, round(share * g.size)), g.size - 1) for name, g in free.items()}
    return {name: np.isin(np.arange(g.size), rng.permutation(g.size)[: count[name]]) for name, g in free.items()}


def removal(fn, params, x, removed=None):
    """Mask channels, shrink, and hold the result to what removal means. Returns (groups, masked params, Shrunk)."""
    groups = sx.groups(fn, params, x)
    removed = pick(groups, 0.5) if removed is None else removed
    masked = prune.mask_groups(groups, params, removed)
    small = prune.shrink(fn, masked, x)
    assert small.report.removed == {n: (int(g.sum()), len(g)) for n, g in removed.items() if g.any()}
    for path, weight in tree.weights(small.params).items():
        np.testing.assert_array_equal(weight, _left(path, np.asarray(tree.weights(params)[path]), groups, removed))
    expected = jax.jit(fn)(sx.dense(masked), x)
    np.testing.assert_allclose(
        small.apply(small.params, x), expected, rtol=1e-5, atol=1e-5 * float(abs(expected).max())
    )
    return groups, masked, small


def _left(path, weight, groups, removed):
    """The weight without its indices in the removed channels."""
    gone = [
        (member.axis, member.indices[removed[name]].ravel())
        for name, group in groups.items()
        for member in group.members
        if member.path == path and name in removed
    ]
    for axis in range(weight.ndim):
        indices = np.concatenate([np.zeros(0, int), *(i for a, i in gone if a == axis)])
        weight = np.delete(weight, indices, axis)
    return weight


MODELS = {
    "resnet20_a": (models.ResNet((4, 6, 8), (3, 3, 3), 4, functools.partial(models.BasicBlock, shortcut="A")), 8),
    "resnet20_b": (models.ResNet((4, 6, 8), (3, 3, 3), 4, functools.partial(models.BasicBlock, shortcut="B")), 8),
    "wide_resnet": (models.ResNet((4, 6, 8), (1, 1, 1), 3, models.PreActBlock, preact=True), 8),
    "vgg16_bn": (models.VGG(((4, 4), (4, 4), (6, 6, 6), (6, 6, 6), (8, 8, 8)), mean=(0.5,), std=(0.2,)), 32),
    "vit": (models.ViT(patch=4, width=12, depth=2, heads=3), 8),
}


@functools.cache
def network(name):
    """(apply, variables, x) of one of the models, narrow."""
    module, side = MODELS[name]
    x = images(2, side, side, 3)
    return models.eval_apply(module), variables(module, x[:1]), x
