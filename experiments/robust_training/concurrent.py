"""Question: what does an adversary that is one update behind cost in accuracy, and what does it buy at equal time?

Paper: Liu et al., Concurrent Adversarial Learning for Large-Batch Training (arXiv 2106.00221). `adversary` is "stale",
ConAdv, whose step is a chain of one forward and backward pass, or "fresh", the same loss in a chain of two: the work is
the same. `equal` is "work", the same `epochs` for both, or "time", half of them for the fresh one, as where devices
enough attack and train at once.
Command: python -m experiments.run --config=experiments/robust_training/concurrent.py --config.adversary=stale
Time: about 3 minutes on two busy CPU cores, once the dense network is trained.
Expected: with seed 0 and equal work clean 99.2 % and worst of the attacks 80.2 % stale, 98.9 % and 79.4 % fresh;
fresh for half as long, 98.1 % and 78.8 %.
"""

import jax
import optax
from ml_collections import ConfigDict

from experiments.common import configs
from experiments.common.subject import BATCH, Subject, initialized, steps_of
from spartax import attacks, checks, data, train
from spartax.records import Array, Attack, Params
from spartax.train import Loss, Network

QUICK = {"epochs": 2}


def get_config() -> ConfigDict:
    own = {"adversary": "stale", "equal": "work", "share": 0.5, "rate": 2e-3}
    return configs.base(method="concurrent", epochs=40, timed=False, curve=(), out="results/concurrent", **own)


def label(config: ConfigDict) -> str:
    return f"{config.adversary} adversary, equal {config.equal}, {trained(config)} epochs"


def trained(config: ConfigDict) -> int:
    """Passes over the images."""
    return config.epochs if config.adversary == "stale" or config.equal == "work" else config.epochs // 2


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """From random weights, under attacks of one step."""
    checks.one_of("--config.adversary", config.adversary, ("stale", "fresh"))
    checks.one_of("--config.equal", config.equal, ("work", "time"))
    assert subject.train is not None
    images, apply, key = subject.train, subject.apply_fn, jax.random.key(config.seed)
    is_stale = config.adversary == "stale"
    epochs = trained(config)
    attack, steps = attacks.fgsm(subject.eps), steps_of(images, epochs)
    batches = data.batches(images, min(BATCH, len(images.y)), key, epochs=epochs, drop_last=True)
    variables = initialized(subject.module, images, config.seed)
    if is_stale:
        variables = train.with_adversary(variables, attack, apply, key, *batches[0])
    tx = optax.adam(optax.cosine_decay_schedule(config.rate, steps))
    step = train.make_step(
        train.conadv(attack, share=config.share) if is_stale else fresh(attack, config.share), tx, apply
    )
    pairs = train.look_ahead(batches) if is_stale else batches
    state, _ = train.fit(step, train.init_state(variables, tx), pairs, key, total=steps, progress=False)
    return {"params": state.variables["params"]}


def fresh(attack: Attack, share: float) -> Loss:
    """The loss of ConAdv with attacks on the weights of now."""
    clean, attacked = train.clean(), train.pgd_at(attack)

    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        value, updates = clean(network, key, x, y)
        return (1 - share) * value + share * attacked(network, key, x, y)[0], updates

    return loss
