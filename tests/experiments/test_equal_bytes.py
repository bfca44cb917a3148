"""Mixtures of the benchmark at equal bytes: each spends what it may, and no more."""

import pathlib

import jax
import numpy as np
import pytest

import spartax as sx
from experiments.benchmark import equal_bytes
from experiments.common import configs
from experiments.common.subject import Subject
from spartax import data, models, tree

FILE = str(pathlib.Path(equal_bytes.__file__))
SHARE = 0.4


@pytest.fixture(scope="module")
def subject():
    """A network with weights that 2:4 can take, and one (of a single input channel) that it cannot."""
    module, draw = models.CNN((8, 16), 32), np.random.default_rng(0)
    images = data.Dataset(
        draw.random((32, 8, 8, 1), np.float32), draw.integers(0, 10, 32), "noise", 10, tuple("0123456789")
    )
    variables = jax.jit(module.init)(jax.random.key(0), images.x[:1])
    return Subject("CNN", models.eval_apply(module), variables, images, 0.1, 255, images, module)


@pytest.mark.parametrize("start", equal_bytes.STARTS)
def test_a_mixture_spends_its_share_on_the_weights_it_may_take(start, subject):
    values = configs.load(FILE, [("start", start), ("share", str(SHARE)), ("calibration", "32")], quick=True).values
    found = tree.weights(equal_bytes.compressed(values, subject))
    dense = tree.weights(subject.variables)
    taken = [path for path, w in dense.items() if w.ndim > 1 and w.shape[-2] % 4 == 0]
    assert len(taken) == 3 == sum(w.ndim > 1 for w in dense.values()) - 1
    assert {path for path, w in found.items() if sx.arrays.is_leaf(w)} <= set(taken)
    spent = sx.nbytes(sx.pack({path: found[path] for path in taken}))
    whole = sum(dense[path].nbytes for path in taken)
    directions = [4 * (dense[path].size // dense[path].shape[-1] + dense[path].shape[-1]) for path in taken]
    assert SHARE * whole - max(directions) < spent <= SHARE * whole  # one more direction would not fit
    inner = found["params/linear1/kernel"]
    if start == "factors":
        assert isinstance(inner, sx.LowRank)
    else:
        assert [type(term).__name__ for term in inner.terms] == [
            "Quantized" if start == "int4" else "Masked",
            "LowRank",
        ]
