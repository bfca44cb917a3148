"""`python -m experiments.lowrank.click_through [--small | --quick] [--out FILE]`: tables and an MLP, factorized.

Question: what do factorizations cost a model of click-through rates, in AUC?
Paper: "Unified Low-rank Compression Framework for Click-through Rate Prediction" (S013): Atomic Feature Mimicking of
tables and MLP, with the mean of what is dropped in the biases. Its data, Criteo, are replaced by a synthetic problem
whose answer is known: each value of a field has a few hidden traits, drawn once, clicks follow traits and their pairs,
and values are as unequally frequent as words. The AUC of the true probabilities, which no model can exceed, is printed.
"""

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import spartax as sx
from spartax import lowrank, measure
from spartax.records import Array, Evidence, Params, Path, Ranks, Transform, Weights

TRAITS = 3  # hidden numbers of each value of a field


class Sizes(NamedTuple):
    """Of the problem and of the model.

    Attributes:
      fields: categorical inputs.
      values: each of them takes.
      width: of an embedding.
      hidden: units of both hidden layers.
      examples: to train on, and as many to judge.
      steps: of Adam, on 256 examples each.
    """

    fields: int = 8
    values: int = 500
    width: int = 16
    hidden: int = 128
    examples: int = 100_000
    steps: int = 1500


SMALL = Sizes(fields=4, values=200, width=8, hidden=32, examples=20_000, steps=500)
QUICK = Sizes(fields=4, values=40, width=8, hidden=32, examples=4000, steps=200)


class Clicks(NamedTuple):
    """Examples.

    Attributes:
      x: the value of every field, int32 [N, fields].
      probability: of a click, known as the problem is synthetic, [N].
      y: whether it was clicked, float32 [N].
    """

    x: np.ndarray
    probability: np.ndarray
    y: np.ndarray


def problem(sizes: Sizes, seed: int = 0) -> tuple[Clicks, Clicks]:
    """Examples to train on and to judge: `logit = a . t + t . B t` of the traits t of all fields, at spread 2."""
    rng = np.random.default_rng(seed)
    traits = rng.normal(size=(sizes.fields, sizes.values, TRAITS))
    frequency = 1 / np.arange(1, sizes.values + 1)  # Zipf's law
    draw = rng.choice(sizes.values, (2 * sizes.examples, sizes.fields), p=frequency / frequency.sum())
    seen = traits[np.arange(sizes.fields), draw].reshape(len(draw), -1)
    alone, pairs = rng.normal(size=seen.shape[1]), rng.normal(size=(seen.shape[1], seen.shape[1]))
    logit = seen @ alone + np.einsum("ni,ij,nj->n", seen, pairs, seen) / seen.shape[1] ** 0.5
    probability = 1 / (1 + np.exp(-2 * (logit - logit.mean()) / logit.std()))
    clicked = rng.random(len(draw)) < probability
    whole = Clicks(draw.astype(np.int32), probability, clicked.astype(np.float32))
    return Clicks(*(part[: sizes.examples] for part in whole)), Clicks(*(part[sizes.examples :] for part in whole))


def initialized(sizes: Sizes, seed: int = 0) -> Params:
    """Tables `[values, width]` with a bias each, and three Dense layers."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5, jnp.float32)  # noqa: E731
    widths = [sizes.fields * sizes.width, sizes.hidden, sizes.hidden, 1]
    tables = {
        str(i): {"table": draw(sizes.values, sizes.width) * sizes.values**0.5 / 10, "bias": jnp.zeros(sizes.width)}
        for i in range(sizes.fields)
    }
    layers = {
        f"layer{i}": {"kernel": draw(m, n), "bias": jnp.zeros(n)} for i, (m, n) in enumerate(itertools.pairwise(widths))
    }
    return {"fields": tables, **layers}


def predicted(params: Params, x: Array) -> Array:
    """The logit of a click, [B, 1], of values `x`, int32 [B, fields]; params may be compressed."""
    rows = [field["table"][column] + field["bias"] for column, field in zip(x.T, params["fields"].values())]
    out = jnp.concatenate(rows, axis=1)
    for name in ("layer0", "layer1"):
        out = jax.nn.relu(out @ params[name]["kernel"] + params[name]["bias"])
    return out @ params["layer2"]["kernel"] + params["layer2"]["bias"]


def trained(params: Params, clicks: Clicks, steps: int, rate: float = 5e-3, seed: int = 0) -> Params:
    """Adam on the cross-entropy of the clicks, 256 at a time; compressed leaves are trained as they are."""
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))
    apply = sx.compressed(predicted)

    def loss(params: Params, x: Array, y: Array) -> Array:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(apply(params, x)[:, 0], y))

    @jax.jit
    def step(params: Params, state: optax.OptState, x: Array, y: Array) -> tuple[Params, optax.OptState]:
        updates, state = tx.update(jax.grad(loss)(params, x, y), state)
        return optax.apply_updates(params, updates), state

    state, rng = tx.init(params), np.random.default_rng(seed)
    for _ in range(steps):
        rows = rng.integers(0, len(clicks.y), 256)
        params, state = step(params, state, clicks.x[rows], clicks.y[rows])
    return params


def auc(scores: np.ndarray, clicks: np.ndarray) -> float:
    """How often a click scores above a non-click, ties half; `clicks` are 0 or 1, or probabilities: its expectation."""
    place = np.unique(scores, return_inverse=True)[1]
    positive, negative = np.bincount(place, clicks), np.bincount(place, 1 - clicks)
    below = np.cumsum(negative) - negative / 2
    return float(positive @ below / (positive.sum() * negative.sum()))


def alike(ratio: float) -> Ranks:
    """The largest rank of each m x n matrix whose factors take `ratio` of its bytes: `floor(ratio m n / (m + n))`."""

    def choose(matrices: Weights, evidence: Evidence) -> dict[Path, int]:
        del evidence
        return {path: max(1, int(ratio * m.size / sum(m.shape))) for path, m in matrices.items()}

    return choose


def compressed(params: Params, clicks: Clicks, method: str, ratio: float) -> Params:
    """Every table and layer at this share of its bytes, with the same ranks by all methods."""
    steps: tuple[Transform, ...] = (lowrank.factorize(METHODS[method], alike(ratio)),)
    if method == "atomic features":
        steps += (sx.correct_bias(),)
    batches = [clicks.x[start : start + 1000] for start in range(0, min(len(clicks.x), 4000), 1000)]
    return sx.compress(predicted, params, *steps, batches=batches, rule=lambda path, weight: True).params


METHODS = {"svd": lowrank.svd(), "whitened": lowrank.whitened(0.01), "atomic features": lowrank.atomic_features()}


def rows(sizes: Sizes, ratios: Sequence[float], tune_steps: int) -> list[dict]:
    """Bytes and AUC: the true probabilities, the dense model, every method at every ratio, in one shot and tuned."""
    known, test = problem(sizes)
    apply = sx.compressed(predicted)
    judged = lambda params: auc(np.asarray(apply(params, test.x))[:, 0], test.probability)  # noqa: E731
    dense = trained(initialized(sizes), known, sizes.steps)
    found = [
        {"method": "true probabilities", "auc": auc(test.probability, test.probability)},
        {"method": "dense", "bytes": sx.nbytes(dense), "auc": judged(dense)},
    ]
    for ratio in ratios:
        for method in METHODS:
            made = compressed(dense, known, method, ratio)
            row = {"method": f"{method}, 1/{1 / ratio:.3g}", "bytes": sx.nbytes(made), "auc": judged(made)}
            if tune_steps:
                row["tuned auc"] = judged(trained(made, known, tune_steps, 5e-4, seed=1))
            found.append(row)
    return found


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="a fifth of the examples, a tenth of the weights: a minute")
    size.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--out", type=pathlib.Path, help="write the rows to this file, as JSON")
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else SMALL if given.small else Sizes()
    found = rows(sizes, (1 / 4,) if given.quick else (1 / 3, 1 / 4, 1 / 5), 50 if given.quick else 500)
    print("| | bytes | AUC | tuned |\n| --- | --: | --: | --: |")
    for row in found:
        size, tuned = (f"{row['bytes']:,}" if "bytes" in row else ""), row.get("tuned auc")
        print(f"| {row['method']} | {size} | {row['auc']:.4f} | {'' if tuned is None else f'{tuned:.4f}'} |")
    if given.out:
        made = {"sizes": sizes._asdict(), **measure.environment(), "rows": found}
        given.out.write_text(json.dumps(made, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
