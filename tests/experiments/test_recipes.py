"""The recipes on a network of two layers: which weights are left, and how they came about."""

import pathlib

import jax
import numpy as np
import pytest

import spartax as sx
from experiments import run
from experiments.common import configs
from experiments.common.subject import Subject, initialized
from experiments.robust_training.recipes import hydra
from spartax import arrays, data, models, tree

RECIPES = pathlib.Path(hydra.__file__).parent
KERNELS = ["params/linear1/kernel", "params/linear2/kernel"]  # of 32 and 24 entries


@pytest.fixture(scope="module")
def subject():
    rng = np.random.default_rng(0)
    x, y = rng.random((128, 2, 2, 1), dtype=np.float32), rng.integers(0, 3, 128).astype(np.int32)
    images, module = data.Dataset(x, y, "noise", 3, ("a", "b", "c")), models.MLP((8,), 3)
    variables = jax.tree.map(lambda w: 2 * w, initialized(module, images, 7))
    return Subject("mlp", models.eval_apply(module), variables, images, 0.1, 16, images, module)


def made(name, subject, **values):
    """The weights of a recipe, with one epoch of each stage."""
    config = configs.load(str(RECIPES / f"{name}.py"), [(k, str(v)) for k, v in values.items()], quick=True)
    return run.compressed(config, subject)


def kept(params):
    """Kept entries of both weights, each of them `Masked` around a plain array."""
    found = tree.pick(params, KERNELS)
    assert all(isinstance(w, sx.Masked) and isinstance(w.weight, jax.Array) for w in found.values())
    return [int(w.mask.sum()) for w in found.values()]


def test_hydra_learns_its_masks_and_then_its_weights(subject):
    params = made("hydra", subject, sparsity=0.5, score_rate=0.5)
    assert kept(params) == [16, 12]
    for path, leaf in tree.pick(params, KERNELS).items():
        before = np.asarray(tree.pick(subject.variables, KERNELS)[path])
        assert np.abs(before - leaf.weight)[np.asarray(leaf.mask)].min() > 1e-4
        largest = np.sort(np.abs(before).ravel())[-leaf.mask.sum() :]
        assert not np.isin(np.abs(before)[np.asarray(leaf.mask)], largest).all()
    assert hydra.is_score("params/layer1_0/bn1/scale", None)
    assert not hydra.is_score("params/layer1_0/conv1/kernel/weight", None)


def test_mad_and_twin_rep_rank_all_layers_together(subject):
    for name in ("mad", "twin_rep"):
        counts = kept(made(name, subject, sparsity=0.75))
        assert sum(counts) == 14
        assert counts != [8, 6]


def test_radmm_pulls_before_it_prunes(subject):
    """A pull that is strong leaves next to nothing for the pruning to remove."""
    params = made("radmm", subject, sparsity=0.5, rhos="(100.0,)", pull_epochs=60, tune_rate=0.0)
    assert kept(params) == [16, 12]
    for leaf in tree.pick(params, KERNELS).values():
        size = np.abs(np.asarray(leaf.weight))
        assert size[~np.asarray(leaf.mask)].max() < 0.1 * size[np.asarray(leaf.mask)].mean()


@pytest.mark.parametrize("adaptive", [True, False])
def test_flying_bird_is_sparse_from_its_own_random_weights(subject, adaptive):
    params = made("flying_bird", subject, sparsity=0.5, adaptive=adaptive, sparse_epochs=3)
    assert sum(kept(params)) == 28
    start = initialized(subject.module, subject.train, 0)
    for path, leaf in tree.pick(params, KERNELS).items():
        moved = np.abs(np.asarray(leaf.weight - tree.pick(start, KERNELS)[path]))
        assert np.median(moved[np.asarray(leaf.mask)]) < 0.02


def test_int4_rounds_weights_and_activations(subject):
    for leaf in tree.pick(made("int4", subject), KERNELS).values():
        assert isinstance(leaf, arrays.FakeInputs)
        assert (leaf.quantizer.bits, leaf.weight.quantizer.bits) == (4, 4)


@pytest.mark.parametrize("file", sorted(p.stem for p in RECIPES.glob("*.py") if p.stem not in ("__init__", "options")))
def test_every_recipe_says_what_it_does(file):
    config = configs.load(str(RECIPES / f"{file}.py"))
    for word in (
        "Paper: ",
        f"Command: python -m experiments.run --config=experiments/robust_training/recipes/{file}.py",
    ):
        assert word in config.module.__doc__
    assert all(word in config.module.__doc__ for word in ("Time: ", "Expected: "))
    assert config.label
