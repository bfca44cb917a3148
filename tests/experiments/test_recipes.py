"""The recipes on a network of two layers: which weights are left, and how they came about."""

import functools
import pathlib

import jax
import numpy as np
import pytest

import spartax as sx
from experiments import run
from experiments.common import compressing, configs
from experiments.common import subject as common
from experiments.common.subject import Subject, initialized
from experiments.robust_training.recipes import hydra
from spartax import arrays, data, models, prune, train, tree

RECIPES = pathlib.Path(hydra.__file__).parent
PGD_TRAINING = common.pgd_training  # before the tests replace it
KERNELS = ["params/linear1/kernel", "params/linear2/kernel"]  # of 32 and 24 entries


@pytest.fixture(scope="module")
def subject():
    """The second weight is the larger one: a ranking of all weights together keeps more of it."""
    rng = np.random.default_rng(0)
    x, y = rng.random((128, 2, 2, 1), dtype=np.float32), rng.integers(0, 3, 128).astype(np.int32)
    images, module = data.Dataset(x, y, "noise", 3, ("a", "b", "c")), models.MLP((8,), 3)
    variables = initialized(module, images, 7)
    variables["params"]["linear2"]["kernel"] *= 4
    return Subject("mlp", models.eval_apply(module), variables, images, 0.1, 16, images, module)


@pytest.fixture(autouse=True)
def without_attack(monkeypatch):
    """Compiling PGD is most of the time of a short training; HYDRA has a loss of its own, attacked here too."""
    monkeypatch.setattr(common, "pgd_training", lambda eps: train.clean())


def made(name, subject, **values):
    """The weights of a recipe, with one epoch of each stage."""
    config = configs.load(str(RECIPES / f"{name}.py"), [(k, str(v)) for k, v in values.items()], quick=True)
    return run.compressed(config, subject)


def is_kept(params):
    """The masks of both weights, one after the other."""
    return np.concatenate([np.ravel(w.mask) for w in tree.pick(params, KERNELS).values()])


def largest(weights, count):
    """Where the largest entries of both arrays are, as a mask of them one after the other."""
    entries = np.concatenate([np.ravel(weights[path]) for path in KERNELS])
    return np.isin(np.arange(entries.size), np.argsort(-entries, kind="stable")[:count])


def kept(params):
    """Kept entries of both weights, each of them `Masked` around a plain array."""
    found = tree.pick(params, KERNELS)
    assert all(isinstance(w, sx.Masked) and isinstance(w.weight, jax.Array) for w in found.values())
    return [int(w.mask.sum()) for w in found.values()]


def test_hydra_learns_its_masks_and_then_its_weights(subject):
    params = made("hydra", subject, sparsity=0.5, score_rate=0.5)
    assert kept(params) == [16, 12]
    others = 0
    for path, leaf in tree.pick(params, KERNELS).items():
        before, mask = np.asarray(tree.pick(subject.variables, KERNELS)[path]), np.asarray(leaf.mask)
        assert np.abs(before - leaf.weight)[mask].max() > 1e-4  # units that are dead on all images do not move
        others += np.sum(mask != (np.abs(before) >= np.sort(np.abs(before).ravel())[-mask.sum()]))
    assert others > 0


@pytest.mark.parametrize(("every", "left"), [(10_000, 2), (64, 1)])
def test_an_interrupted_recipe_goes_on_where_it_was(subject, monkeypatch, tmp_path, every, left):
    """Two steps of scores, two of weights, of which the second is interrupted."""
    done, fit = [], train.fit

    def counted(stop):
        def fitted(step, *given, **options):
            @functools.wraps(step)
            def one(*args):
                done.append(step)
                if len(done) == stop:
                    raise KeyboardInterrupt
                return step(*args)

            return fit(one, *given, **options)

        done.clear()
        monkeypatch.setattr(train, "fit", fitted)

    monkeypatch.setattr(common, "SAVED_IMAGES", every)
    counted(None)
    whole = made("hydra", subject, sparsity=0.5)
    assert len(done) == 4
    counted(4)
    with pytest.raises(KeyboardInterrupt):
        made("hydra", subject._replace(stages=common.stages(tmp_path)), sparsity=0.5)
    counted(None)
    again = made("hydra", subject._replace(stages=common.stages(tmp_path)), sparsity=0.5)
    assert len(done) == left
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_two_trainings_from_one_start_have_their_own_checkpoints(subject, tmp_path):
    some = subject._replace(stages=common.stages(tmp_path))
    given = (subject.variables, 1, 0, 1e-3)
    one, other = (common.tuned(some, *given, loss=loss) for loss in (None, train.trades(subject.eps, beta=6.0)))
    assert not np.array_equal(*(jax.tree.leaves(found)[0] for found in (one, other)))
    assert len([*tmp_path.iterdir()]) == 2


def test_on_a_mesh_weights_are_those_of_one_device(subject):
    """Eight devices, as rows and columns; what comes back lies on one."""
    config = configs.load(str(RECIPES / "hydra.py"), [("mesh", "(4, 2)")])
    given = (subject.variables, 2, 0, 1e-3, prune.prune(prune.magnitude(), 0.5, prune.uniform()))
    one = common.tuned(subject, *given)
    many = common.tuned(subject._replace(mesh=common.mesh_of(config.values)), *given)
    assert all(x.devices() == {jax.devices()[0]} for x in jax.tree.leaves(many))
    assert kept(one) == kept(many) == [16, 12]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, many)


def test_scores_are_trained_with_norms_whatever_these_are_called():
    norm, layer = {"scale": 1.0, "bias": 0.0}, {"kernel": 1.0, "bias": 0.0}
    rule = compressing.scores_and_norms({"subnet": layer, "BatchNorm_0": norm, "block": {"ln": norm}, "alone": 1.0})
    for path in ("BatchNorm_0/scale", "BatchNorm_0/bias", "block/ln/bias", "subnet/kernel/scores"):
        assert rule(path, None)
    for path in ("subnet/kernel/weight", "subnet/bias", "alone", "block/bias"):
        assert not rule(path, None)


def sizes(variables):
    return {path: np.abs(w) for path, w in tree.pick(variables, KERNELS).items()}


def test_mad_keeps_the_largest_of_its_scores_over_all_layers(subject, monkeypatch):
    """Which are no magnitudes; the attack of the scores is that of the threat."""
    real, found, attack = prune.mad, {}, []

    def mad(given, **options):
        criterion = real(given, **options)
        attack.append(given)

        def score(weights, evidence):
            found.update(criterion.score(weights, evidence))
            return found

        return criterion._replace(score=score)

    monkeypatch.setattr(prune, "mad", mad)
    masks = is_kept(made("mad", subject, sparsity=0.75))
    np.testing.assert_array_equal(masks, largest(found, 14))
    assert np.sum(masks != largest(sizes(subject.variables), 14)) > 2
    x, y = batch(subject)
    moved = attack[0](jax.random.key(0), lines, x, y)
    np.testing.assert_allclose(np.abs(moved - x).max(), subject.eps, rtol=1e-5)


def test_twin_rep_keeps_the_largest_products_of_its_training_over_all_layers(subject, monkeypatch):
    """Which are others than before it."""
    products, finish = {}, prune.finish

    def finished(params):
        done = finish(params)
        products.update(sizes(done))
        return done

    monkeypatch.setattr(prune, "finish", finished)
    masks = is_kept(made("twin_rep", subject, sparsity=0.75, twin_rate=0.1))
    np.testing.assert_array_equal(masks, largest(products, 14))
    assert np.sum(masks != largest(sizes(subject.variables), 14)) > 2
    assert masks[32:].sum() > 6  # of the larger weight; half of them for each layer alone would be 6


@pytest.fixture
def losses(monkeypatch):
    """`(loss, variables)` of every training that is begun; nothing is trained."""
    begun = []
    monkeypatch.setattr(train, "make_step", lambda loss, *given: loss)
    monkeypatch.setattr(train, "fit", lambda loss, state, *given, **rest: begun.append((loss, state)) or (state, []))
    return begun


def batch(subject):
    return subject.train.x[:8], np.arange(8) % 2


def lines(x):
    """Logits of two classes."""
    total = x.reshape(len(x), -1).sum(1)
    return jax.numpy.stack([total, 1 - total], 1)


@pytest.mark.parametrize(
    ("name", "trainings"), [("mad", 1), ("twin_rep", 2), ("radmm", 4), ("flying_bird", 1), ("int4", 1)]
)
def test_every_training_of_a_recipe_attacks_with_seven_steps(subject, monkeypatch, losses, name, trainings):
    """A stand-in for PGD, whose images must be those that the loss is taken on."""
    attack = lambda key, logits_fn, x, y: x + 0.25  # noqa: E731
    asked = []
    monkeypatch.setattr(common, "pgd_training", PGD_TRAINING)
    monkeypatch.setattr(common.attacks, "pgd", lambda *given, **options: asked.append((given, options)) or attack)
    monkeypatch.setattr(prune, "mad", lambda *given, **options: prune.magnitude())  # compiling it is another test
    made(name, subject)
    assert len(losses) == trainings
    assert ((subject.eps,), {"steps": 7}) in asked
    for loss, state in losses:
        seen = []
        forward = lambda x, seen=seen: (seen.append(np.asarray(x)) or lines(x), {})  # noqa: E731
        loss(train.Network(lines, forward, state.variables), jax.random.key(0), *batch(subject))
        np.testing.assert_array_equal(seen, [batch(subject)[0] + 0.25])


def test_both_trainings_of_hydra_are_under_trades(subject, losses):
    made("hydra", subject, beta=3.0)
    assert len(losses) == 2
    network, key = train.Network(lines, lambda x: (lines(x), {})), jax.random.key(0)
    want, plain = (
        float(loss(network, key, *batch(subject))[0]) for loss in (train.trades(subject.eps, beta=3.0), train.clean())
    )
    assert want > plain + 0.02
    for loss, _ in losses:
        np.testing.assert_allclose(loss(network, key, *batch(subject))[0], want, rtol=1e-6)


def test_the_stale_adversary_of_concurrent_training_is_another_than_the_fresh_one(subject):
    """Where the attacked images count: without them both are the same training."""

    def trained(adversary, share):
        values = [("adversary", adversary), ("share", share), ("rate", "0.05"), ("epochs", "2")]
        config = configs.load(str(RECIPES.parent / "concurrent.py"), values, quick=True)
        return jax.tree.leaves(run.compressed(config, subject))

    stale, fresh = trained("stale", "0.0"), trained("fresh", "0.0")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), stale, fresh)
    stale, fresh = trained("stale", "1.0"), trained("fresh", "1.0")
    assert max(np.abs(a - b).max() for a, b in zip(stale, fresh, strict=True)) > 1e-3


def test_radmm_pulls_before_it_prunes(subject):
    """A pull that is strong leaves next to nothing for the pruning to remove."""
    params = made("radmm", subject, sparsity=0.5, rhos="(100.0,)", pull_epochs=60, pull_rate=0.05, tune_rate=0.0)
    assert kept(params) == [16, 12]
    for leaf in tree.pick(params, KERNELS).values():
        size, mask = np.abs(np.asarray(leaf.weight)), np.asarray(leaf.mask)
        assert size[~mask].max() < 0.1 * size[mask].mean()


@pytest.mark.nightly
def test_flying_bird_is_sparse_from_its_own_random_weights(subject):
    params = made("flying_bird", subject, sparsity=0.5, sparse_epochs=3)
    assert sum(kept(params)) == 28
    start = initialized(subject.module, subject.train, 0)
    for path, leaf in tree.pick(params, KERNELS).items():
        moved = np.abs(np.asarray(leaf.weight - tree.pick(start, KERNELS)[path]))
        assert np.median(moved[np.asarray(leaf.mask)]) < 0.02


@pytest.mark.nightly  # the training of its parts is tested with the study of quantization
def test_int4_rounds_weights_and_activations(subject):
    for leaf in tree.pick(made("int4", subject), KERNELS).values():
        assert isinstance(leaf, arrays.FakeInputs)
        assert (leaf.quantizer.bits, leaf.weight.quantizer.bits) == (4, 4)


@pytest.mark.nightly  # three trainings to compile; the controller and its way to the optimizer have tests of their own
def test_accelat_is_a_constant_rate_until_accuracy_stops_rising(subject, monkeypatch):
    """Three epochs on the same batches; the rate falls after the second, or not at all."""

    def trained(schedule, scores=()):
        config = configs.load(str(RECIPES.parent / "accelerated.py"), [("schedule", schedule)], quick=True)
        told = iter(scores)
        monkeypatch.setattr(config.module, "watching", lambda *given: lambda variables: next(told))
        return jax.tree.leaves(run.compressed(config, subject))

    constant, rising, flat = trained("constant"), trained("accelat", (0.1, 0.2, 0.3)), trained("accelat", (0.1,) * 3)
    assert all(map(np.array_equal, constant, rising))
    assert not any(map(np.array_equal, constant, flat))


@pytest.mark.parametrize(
    ("adversary", "equal", "epochs"), [("stale", "time", 6), ("fresh", "work", 6), ("fresh", "time", 3)]
)
def test_the_label_of_concurrent_training_tells_the_epochs_that_are_trained(
    subject, monkeypatch, adversary, equal, epochs
):
    def batches(*given, epochs, **options):
        raise RuntimeError(f"{epochs} epochs")

    monkeypatch.setattr(data, "batches", batches)
    changes = [("adversary", adversary), ("equal", equal), ("epochs", "6")]
    config = configs.load(str(RECIPES.parent / "concurrent.py"), changes)
    with pytest.raises(RuntimeError, match=f"^{epochs} epochs"):
        run.compressed(config, subject)
    assert config.label == f"{adversary} adversary, equal {equal}, {epochs} epochs"
