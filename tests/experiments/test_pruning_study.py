"""The study of pruning: what runs of one process share, its grid and tables, and the methods under attack."""

import functools
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest

import spartax as sx
from experiments import run, sweep
from experiments.common import configs, networks
from experiments.common import subject as common
from experiments.common.subject import Subject
from experiments.pruning import scored, tables
from experiments.pruning.options import KEPT, NEW
from spartax import attacks, data, measure, models, prune, train

STUDY = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "pruning"
ONE_SHOT, ROBUST = str(STUDY / "one_shot.py"), str(STUDY / "robust.py")


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
    images = data.digits("test")
    variables = jax.jit(lambda key, x: Small().init(key, x, False))(jax.random.key(0), images.x[:1])
    some = images._replace(x=images.x[:32], y=images.y[:32])
    return Subject("small", models.eval_apply(Small()), variables, some, 0.1, 16, some, Small())


@pytest.fixture
def values(network, monkeypatch, tmp_path):
    """The values of a config file with changes; nothing is remembered from another test, since the folder differs."""
    monkeypatch.setattr(networks, "load", lambda config: network)
    common = {"out": str(tmp_path), "calibration": "32", "timed": "False"}
    return lambda file=ONE_SHOT, **changes: configs.load(file, list({**common, **changes}.items()))


def masks(params):
    return {path: np.asarray(w.mask) for path, w in sx.tree.weights(params).items() if isinstance(w, sx.Masked)}


def given(network):
    return {"batches": [(network.train.x, network.train.y)], "loss": attacks.losses.cross_entropy}


@pytest.mark.parametrize("allocation", ["pooled", "rate_distortion"])
def test_a_cell_is_what_compress_gives(network, values, allocation):
    """Scores and curves that are shared by two sparsities, against each done on its own."""
    for sparsity in (0.5, 0.8):
        config = values(criterion="wanda", allocation=allocation, sparsity=str(sparsity), statistics=KEPT).values
        found = masks(scored.pruned(config))
        alone = prune.prune(prune.wanda(), sparsity, getattr(prune, allocation)())
        expected = masks(sx.compress(network.apply_fn, network.variables, alone, **given(network)).params)
        assert sum(m.sum() for m in found.values()) == round((1 - sparsity) * (72 + 80))
        for path, mask in expected.items():
            np.testing.assert_array_equal(found[path], mask)


def test_swap_is_what_compress_gives_and_ranks_by_itself(network, values):
    config = lambda **changes: values(criterion="swap", sparsity="0.5", statistics=KEPT, **changes).values  # noqa: E731
    found = scored.pruned(config())
    expected = sx.compress(network.apply_fn, network.variables, prune.swap(0.5), **given(network)).params
    assert sum(m.sum() for m in masks(found).values()) == 76
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), sx.dense(found), sx.dense(expected)
    )
    with pytest.raises(ValueError, match="allocation with swap must be one of 'pooled'; got 'erk'"):
        scored.pruned(config(allocation="erk"))


def test_zeros_of_mad_are_an_option_that_is_no_part_of_other_lines(monkeypatch):
    given = []
    monkeypatch.setattr(prune, "mad", lambda attack, zero_saliency: given.append(zero_saliency) or prune.magnitude())
    load = lambda **changes: configs.load(ROBUST, list(changes.items()))  # noqa: E731
    plain, keep = load(method="mad"), load(method="mad", zero_saliency="keep")
    older = {name: value for name, value in plain.options.items() if name != "zero_saliency"}
    assert configs.identity(plain.label, older, 0) == plain.identity
    assert (plain.label, keep.label) == ("mad, 90%, fine-tuned", "mad (keep), 90%, fine-tuned")
    for config in (plain, keep):
        config.module.transform(config.values, 0.1)
    assert given == ["magnitude", "keep"]
    with pytest.raises(ValueError, match="zero_saliency is of mad alone"):
        plain.module.transform(load(zero_saliency="keep").values, 0.1)


def test_a_criterion_is_scored_once_for_all_cells_of_a_seed(values, monkeypatch):
    calls = []

    def score(weights, evidence):
        calls.append(1)
        return prune.random().score(weights, evidence)

    counted = prune.random()._replace(score=score)
    monkeypatch.setattr(scored, "criterion", lambda name, eps: counted)
    drawn = {}
    for seed in ("0", "1"):
        for sparsity in ("0.5", "0.8"):
            for statistics in (KEPT, NEW):
                config = values(criterion="random", seed=seed, sparsity=sparsity, statistics=statistics).values
                drawn[seed, sparsity, statistics] = masks(scored.pruned(config))["params/Conv_0/kernel"]
    assert len(calls) == 2
    assert not np.array_equal(drawn["0", "0.5", KEPT], drawn["1", "0.5", KEPT])
    np.testing.assert_array_equal(drawn["0", "0.8", KEPT], drawn["0", "0.8", NEW])
    assert np.all(drawn["1", "0.8", NEW] <= drawn["1", "0.5", NEW])  # fewer of the same ranking


def test_two_lines_for_a_cell_before_and_after_batch_statistics(network, values, tmp_path):
    """Those of the pruned convolution, over the calibration images, for each channel; no attack, no robust number."""
    for statistics in (KEPT, NEW):
        assert run.run(values(statistics=statistics)) == 0
    lines = measure.read(tmp_path / "results.jsonl")
    names = [f"magnitude, pooled, 90%, {statistics} statistics" for statistics in (KEPT, NEW)]
    assert [line.method for line in lines] == names
    params = {s: run.compressed(values(statistics=s), network) for s in (KEPT, NEW)}
    for line, variables in zip(lines, params.values()):
        assert (line.robust, line.worst) == ({}, None)
        assert line.clean == measure.accuracy(network.apply_fn, sx.dense(variables), network.test.x, network.test.y)
        np.testing.assert_equal(masks(variables), masks(params[KEPT]))
    kernel, found = params[NEW]["params"]["Conv_0"]["kernel"], params[NEW]["batch_stats"]["BatchNorm_0"]
    padded = np.pad(network.train.x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[..., 0, :, :]
    out = np.einsum("bxyhw,hwo->bxyo", windows, np.where(kernel.mask, kernel.weight, 0)[:, :, 0])
    np.testing.assert_allclose(found["mean"], out.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], out.var((0, 1, 2)), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(params[KEPT]["batch_stats"]["BatchNorm_0"]["mean"], 0)


def test_learnt_scores_are_trained_and_the_weights_are_not(network, values, monkeypatch):
    monkeypatch.setattr(common, "pgd_training", lambda eps: train.clean())  # compiling the attack is most of the time
    options = {"sparsity": "0.5", "score_epochs": "3", "score_rate": "0.1", "stage": "one-shot"}  # few steps
    config = values(ROBUST, method="learnt_scores", **options)
    params, before = run.compressed(config, network)["params"], network.variables["params"]
    assert np.abs(params["BatchNorm_0"]["scale"] - before["BatchNorm_0"]["scale"]).max() > 0
    np.testing.assert_array_equal(params["Dense_0"]["bias"], before["Dense_0"]["bias"])
    kernel, dense = params["Dense_0"]["kernel"], np.asarray(before["Dense_0"]["kernel"])
    np.testing.assert_array_equal(kernel.weight, dense)
    assert kernel.mask.sum() == 40
    untrained = np.abs(dense) >= np.sort(np.abs(dense).ravel())[40]
    assert not np.array_equal(kernel.mask, untrained)


def test_a_robust_row_is_judged_by_pgd_and_autoattack_and_dense_by_none():
    robust, dense = configs.load(ROBUST), configs.load(str(STUDY / "dense.py"))
    assert (list(run.judges(robust, 0.1)), robust.values.autoattack) == (["PGD-20"], True)
    assert (run.judges(dense, 0.1), dense.values.autoattack) == ({}, False)
    assert robust.label == "magnitude, 90%, fine-tuned"
    with pytest.raises(ValueError, match="method must be one of"):
        robust.module.transform(configs.load(ROBUST, [("method", "best")]).values, 0.1)


@pytest.mark.parametrize(
    ("file", "count", "names"),
    [
        (
            "sweep",
            12 * 50 + 2 * 50 + 10 + 1,
            [
                "swap, pooled, 95%, trained",
                "random, erk, 70%, trained statistics, seed 2",
                "mad, lamp, 95%, re-estimated",
            ],
        ),
        ("robust_sweep", 91, ["swap, 80%, one-shot, seed 2", "random, 95%, fine-tuned, seed 0", "dense, seed 0"]),
    ],
)
def test_the_grids_hold_everything(file, count, names, capsys, tmp_path):
    assert sweep.main([str(STUDY / f"{file}.py"), "--dry-run", f"--config.out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert int(printed.split()[0]) >= count  # a new criterion adds its rows
    for name in names:
        assert f"  {name}" in printed


THREAT = {"norm": "linf", "eps": 0.1, "levels": 16}


def line(criterion, allocation, clean, seed=0, statistics=NEW, role="method"):
    fields = dict.fromkeys(measure.Record._fields) | {"role": role, "seed": seed, "clean": clean, "robust": {}}
    options = {"criterion": criterion, "allocation": allocation, "sparsity": 0.5, "statistics": statistics}
    fields |= {"options": options if role != "dense" else {}, "bytes_disk": 1, "examples": 2000}
    fields |= {"macs": dict.fromkeys(("dense", "run", "nonzero"), 1), "sparsity": {}, "warnings": [], "device": "cpu"}
    return measure.Record(**fields | {"model": "net", "data": "set", "method": criterion, "threat": THREAT})


def test_tables_mark_the_best_and_what_it_does_not_lead(tmp_path):
    records = [
        line("dense", "", 0.9, role="dense"),
        line("a", "uniform", 0.5),
        line("a", "pooled", 0.8),
        line("b", "uniform", 0.79),
        line("b", "pooled", 0.7),
        *(line("random", "uniform", clean, seed) for seed, clean in enumerate((0.1, 0.2, 0.3))),
        line("a", "uniform", 0.4, statistics=KEPT),
    ]
    page = tables.markdown(records)
    winners, summary, before, grid, _ = page.split("\n## ")[1:]
    told = (
        "a with pooled (80.0 ±1.8), not told apart from b with uniform (79.0 ±1.8); ahead of b with pooled (70.0 ±2.0)."
    )
    assert f"* 50%, re-estimated statistics: {told}\n* 50%, trained statistics: a with uniform (40.0 ±2.1)." in winners
    assert "| a | **80.0 ±1.8** pooled |\n| b | *79.0 ±1.8* uniform |\n| random | 20.0 ±24.9 uniform |" in summary
    assert "| a | **40.0 ±2.1** uniform |" in before
    assert "| a | 50.0 ±2.2 | **80.0 ±1.8** |\n| b | *79.0 ±1.8* | 70.0 ±2.0 |\n| random | 20.0 ±24.9 |  |" in grid
    assert "Dense: 90.0 ±1.3." in page
    attacked = {"macs": dict.fromkeys(("dense", "run", "nonzero"), 1), "sparsity": {}, "warnings": [], "broken_by": {}}
    attacked |= {"robust": {"PGD-20": 0.3}, "worst": 0.3}
    for record in (*records, line("swap", "", 0.6, role="method")._replace(options={}, **attacked)):
        measure.append(tmp_path / "lines.jsonl", record)
    assert tables.main([str(tmp_path)]) == 0
    assert "\n| swap " in (tmp_path / "robust_net.md").read_text()  # beside those that were not attacked
    assert (tmp_path / "one_shot_net.md").read_text().startswith(page)
    assert (tmp_path / "one_shot_net.png").read_bytes()[:4] == b"\x89PNG"


def test_lines_of_other_images_or_another_budget_are_neither_lost_nor_mixed(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(tables, "plot", lambda records, path: drawn.update({path.name: records}))
    monkeypatch.setattr(tables.figures, "fronts", lambda points, path, title: drawn.update({path.name: points}))
    costs = {"macs": dict.fromkeys(("dense", "run", "nonzero"), 1), "sparsity": {}, "warnings": [], "broken_by": {}}
    attacked = {"robust": {"PGD-20": 0.3}, "worst": 0.3}
    cell, dense, swap = line("a", "uniform", 0.5), line("dense", "", 0.9, role="dense"), line("swap", "", 0.6)
    records = [dense, cell, cell._replace(examples=500, clean=0.4)]
    records += [cell._replace(options={**cell.options, "calibration": 64}, clean=0.6), dense._replace(**attacked)]
    for clean, options in ((0.61, {"steps": 300}), (0.62, {"tune_epochs": 2, "training": 10000, "method": "swap"})):
        records.append(swap._replace(options=options, clean=clean, **attacked))
    for record in records:
        measure.append(tmp_path / "lines.jsonl", record._replace(**costs))
    assert tables.main([str(tmp_path)]) == 0
    pages = {name: (tmp_path / f"{name}_net.md").read_text().split("\n# ") for name in ("one_shot", "robust")}
    told = [
        ("2000 images", "50.0 ±2.2", ""),
        ("2000 images", "60.0 ±2.1", "calibration 64"),
        ("500 images", "40.0", ""),
    ]
    assert len(pages["one_shot"]) == len(told)
    for page, (images, accuracy, spent) in zip(pages["one_shot"], told):
        assert f"on {images}" in page
        assert f"| a | **{accuracy}" in page
        assert f"Spent on each: {spent}." in page if spent else "Spent" not in page
        assert page.count("| a |") == 2  # in the summary and in the grid, and no other cell
    first, second = pages["robust"]
    assert first.startswith("# net: pruned, under attack (steps 300)\n")
    assert second.startswith("net: pruned, under attack (tune epochs 2, training 10,000)\n")
    assert ["61.0" in first, "62.0" in first, "61.0" in second, "62.0" in second] == [True, False, False, True]
    assert all(
        "\n| dense " in page and f"({name})" in page
        for page, name in ((first, "robust_net.png"), (second, "robust_net_2.png"))
    )
    assert sorted(drawn) == [
        f"{name}_net{n}.png" for name, count in (("one_shot", 3), ("robust", 2)) for n in ("", "_2", "_3")[:count]
    ]
