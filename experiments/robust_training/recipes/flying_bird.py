"""Question: how robust is a network that is sparse from random weights on, with masks that move under attack?

Paper: Chen et al., Sparsity Winning Twice (arXiv 2202.09844). Flying Bird+ adapts how sparse the masks
are; `adaptive=False` keeps the sparsity: Flying Bird.
Command: python -m experiments.run --config=experiments/robust_training/recipes/flying_bird.py --config.sparsity=0.95
Time: about 5 minutes on two busy CPU cores, once the dense network is trained.
Expected: with seed 0 clean 52.2 %, worst of the attacks 27.2 % (dense: 97.3 and 82.4 %), 8,311 bytes.
"""

import jax
from ml_collections import ConfigDict

import spartax as sx
from experiments.common.subject import ATTACK_STEPS, Subject, first, initialized, steps_of, tuned
from experiments.robust_training.recipes import options
from spartax import attacks, data, prune, train
from spartax.records import Params, Transform

QUICK = options.quick("sparse_epochs")
WATCHED = 256  # held-out images, and as many that are trained on


def get_config() -> ConfigDict:
    return options.base(method="Flying Bird", sparsity=0.95, adaptive=True, sparse_epochs=30)


def label(config: ConfigDict) -> str:
    return f"{config.method}{'+' if config.adaptive else ''}, {config.sparsity:.0%}"


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """Masks move once an epoch, for three quarters of the training; the dense network lends its shapes alone."""
    assert subject.train is not None
    key = jax.random.key(config.seed)
    images, held = data.hold_out(subject.train, min(WATCHED, len(subject.train.y) // 4), key)
    start = initialized(subject.module, images, config.seed)
    moves = (config.sparse_epochs, config.seed, config.tune_rate, moving(config, subject, images, held))
    return tuned(subject._replace(train=images), start, *moves)


def moving(config: ConfigDict, subject: Subject, images: data.Dataset, held: data.Dataset) -> Transform:
    """Flying Bird or Flying Bird+."""
    every = steps_of(images, 1)
    when = {"every": every, "end": max(1, 3 * steps_of(images, config.sparse_epochs) // 4), "fraction": 0.5}
    if not config.adaptive:
        return prune.sparse_evolution(config.sparsity, **when)
    seen = first(images, len(held.y))
    attack, apply = attacks.pgd(subject.eps, steps=ATTACK_STEPS), sx.compressed(subject.apply_fn)
    watch = train.robust_gap(attack, apply, (seen.x, seen.y), (held.x, held.y), jax.random.key(config.seed))
    return prune.flying_bird(watch, config.sparsity, **when)
