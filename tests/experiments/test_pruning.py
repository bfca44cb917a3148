"""The pruning study on a small network with batch statistics: rows, resuming, interrupts, tables."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from experiments.pruning import __main__ as study
from experiments.pruning import one_shot, options, robust, subject
from spartax import data, measure, prune


class Small(nn.Module):
    """A convolution with batch normalization, and a head."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(10)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def network():
    """Images of digits, weights as drawn."""
    module, images = Small(), data.digits("test")
    variables = jax.jit(lambda key, x: module.init(key, x, False))(jax.random.key(0), images.x[:1])
    small = images._replace(x=images.x[:32], y=images.y[:32])
    return subject.Subject(
        "small",
        jax.jit(lambda v, x: module.apply(v, x, False)),
        jax.jit(lambda v, x: module.apply(v, x, True, mutable=["batch_stats"])),
        variables,
        small,
        small,
        small,
        0.1,
        16,
    )


@pytest.fixture
def run(network, monkeypatch, tmp_path):
    """Run the study; gives the exit code and the lines there are then."""
    monkeypatch.setattr(study, "subjects", lambda options: [network])

    def call(*arguments):
        code = study.main(["--quick", "--out", str(tmp_path), *arguments])
        name = "robust" if "--robust" in arguments else "one_shot"
        return code, measure.read(tmp_path / f"{name}_small.jsonl")

    return call


def test_an_interrupted_study_goes_on_and_gives_the_lines_of_one_run(run, monkeypatch, tmp_path):
    whole, row = ["--allocations", "uniform", "--seeds", "0", "5"], one_shot.row
    rows = iter(range(3))

    def interrupted(*args, **kwargs):
        if next(rows, None) is None:
            raise KeyboardInterrupt
        return row(*args, **kwargs)

    monkeypatch.setattr(one_shot, "row", interrupted)
    code, first = run(*whole)
    assert (code, len(first)) == (130, 3)
    assert (tmp_path / "one_shot_small.md").exists()
    monkeypatch.setattr(one_shot, "row", row)
    code, records = run(*whole)
    assert code == 0
    assert records[:3] == first
    name = "{}, uniform, 80%, statistics {}"
    expected = [("dense", 0)]
    expected += [(name.format("magnitude", s), 0) for s in (one_shot.KEPT, one_shot.NEW)]
    expected += [(name.format("random", s), seed) for seed in (0, 5) for s in (one_shot.KEPT, one_shot.NEW)]
    assert [(r.method, r.seed) for r in records] == expected
    assert run(*whole)[1] == records
    for record in records[1:]:
        zeros = list(record.sparsity.values())
        np.testing.assert_allclose(zeros, 0.8, atol=0.02)
        assert record.bytes_packed < records[0].bytes_packed
        assert (record.robust, record.worst) == ({}, None)  # no attack, no robust number
    page = (tmp_path / "one_shot_small.md").read_text()
    drawn = [100 * r.clean for r in records if r.method == name.format("random", one_shot.NEW)]
    assert f"| random | {np.mean(drawn):.1f} ±{np.std(drawn, ddof=1):.1f} |" in page
    assert (tmp_path / "one_shot_small.png").read_bytes()[:4] == b"\x89PNG"


def test_a_criterion_that_cannot_be_run_is_named(network, monkeypatch):
    given = options.parse(["--quick", "--methods", "magnitude", "random"])
    monkeypatch.setattr(one_shot, "_required", lambda make: ["attack"] if make is prune.magnitude else [])
    known, unable = one_shot.criteria(given, 0.1)
    assert list(known) == ["random"]
    assert unable == ["magnitude: needs attack, which has no default"]
    assert next(one_shot.run(network, given, set())) == unable[0]


def test_batch_statistics_are_those_of_the_pruned_network(network):
    """Of the pruned convolution, over the calibration images, for each channel."""
    facts = subject.evidence(network, frozenset(), jax.random.key(0))
    pruned = one_shot._pruned(network.variables, prune.prune(prune.magnitude(), 0.5, prune.uniform()), facts)
    found = one_shot._reestimated(network, pruned)["batch_stats"]["BatchNorm_0"]
    kernel = pruned["params"]["Conv_0"]["kernel"]
    weight = np.where(kernel.mask, kernel.weight, 0)
    padded = np.pad(network.train.x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[..., 0, :, :]
    out = np.einsum("bxyhw,hwo->bxyo", windows, weight[:, :, 0])
    np.testing.assert_allclose(found["mean"], out.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], out.var((0, 1, 2)), rtol=1e-3, atol=1e-6)


def test_robust_rows_before_and_after_fine_tuning(run, tmp_path):
    arguments = ["--robust", "--methods", "learnt_scores"]
    code, records = run(*arguments)
    assert code == 0
    assert [r.method for r in records] == [
        "dense",
        *(f"learnt_scores, 80%, {s}" for s in (robust.BEFORE, robust.AFTER)),
    ]
    assert records[1].sparsity == records[2].sparsity
    assert all(r.worst <= r.robust["PGD-20"] <= r.clean for r in records)
    assert run(*arguments)[1] == records
    assert "learnt_scores, 80%" in (tmp_path / "robust_small.md").read_text()


def test_criteria_are_found_by_name_and_scored_once_for_each_seed(network):
    asked = options.parse(["--data-dir", "d", "--weights", "w"])
    known, _ = one_shot.criteria(asked, 0.1)
    assert {"magnitude", "random", "mad"} <= set(known)
    grid = one_shot.cells(asked, {"magnitude": prune.magnitude(), "random": prune.random()})
    assert len(grid) == 5 * 5 * (1 + 3)
    calls = []

    def score(weights, given):
        calls.append(1)
        return prune.random().score(weights, given)

    once = one_shot._remembered(prune.random()._replace(score=score))
    facts = subject.evidence(network, frozenset(), jax.random.key(0))
    weights = dict(facts.originals)
    first, again = once.score(weights, facts), once.score(weights, facts)
    other = once.score(weights, facts._replace(key=jax.random.key(1)))
    assert len(calls) == 2
    assert all(first[p] is again[p] and not np.array_equal(first[p], other[p]) for p in weights)


def test_a_combination_that_fails_is_said_and_the_rest_goes_on(run, capsys):
    code, records = run("--methods", "magnitude", "--allocations", "uniform", "--sparsities", "0.9999", "0.5")
    assert code == 0
    assert len(records) == 3
    assert "skipped  magnitude, uniform, 100%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data-dir DIR and --weights"),
        (["--quick", "--weights", "w"], "leave --weights out"),
        (["--quick", "--sparsities", "1.5"], "between 0 and 1; got 1.5"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as left:
        study.main(arguments)
    assert left.value.code == 2
    assert message in capsys.readouterr().err
