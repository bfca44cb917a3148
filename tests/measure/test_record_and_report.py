import io
import json
import multiprocessing
import pathlib
import re
import struct

import pytest
from rich.console import Console

from spartax import measure
from spartax.measure import report


def record(method="dense", **changes):
    fields = {
        "method": method,
        "options": {},
        "role": "dense" if method == "dense" else "method",
        "model": "CNN",
        "data": "digits/test",
        "seed": 0,
        "examples": 100,
        "threat": {"norm": "linf", "eps": 0.1, "levels": 16},
        "bytes_disk": 160_000,
        "bytes_packed": 155_000,
        "sparsity": {},
        "macs": {"dense": 400_000, "run": 400_000, "nonzero": 400_000},
        "clean": 0.95,
        "robust": {"FGSM": 0.8, "PGD": 0.75},
        "worst": 0.75,
        "broken_by": {"FGSM": 15, "PGD": 5},
        "warnings": [],
        "latency": {"median": 0.002, "low": 0.0018, "high": 0.0025, "batch": 64},
        "seconds": 3.5,
        "versions": {"jax": "0.10.2"},
        "device": "cpu: cpu x1, 2 host cores",
        "commit": None,
    }
    return measure.Record(**{**fields, **changes})


def four():
    """What the expected report below is made of."""
    dense = {"median": 0.0021, "low": 0.0019, "high": 0.0022}
    fast = {"median": 0.001, "low": 0.0009, "high": 0.0011, "batch": 64, "dense": dense}
    noisy = {**fast, "dense": {**dense, "low": 0.0010}}
    macs = {"dense": 400_000, "run": 400_000, "nonzero": 40_000}
    return [
        record(),
        record(
            "random 90 %", role="baseline", bytes_disk=20_000, clean=0.3, robust={"FGSM": 0.1, "PGD": 0.05}
        )._replace(worst=0.05, macs=macs, latency=None),
        record("low rank", bytes_disk=40_000, warnings=["12 % of gradients are zero"])._replace(latency=fast),
        record("int8", bytes_disk=45_000)._replace(latency=noisy),
    ]


EXPECTED = pathlib.Path(__file__).with_name("expected_report.md").read_text()


def test_the_report_is_generated_from_the_lines_alone(tmp_path):
    for r in four():
        measure.append(tmp_path / "r.jsonl", r)
    assert measure.markdown(measure.read(tmp_path / "r.jsonl"), "Digits") == EXPECTED


def half(mean, examples=100, z=1.96):
    """Half of Wilson's interval, by his formula with the term for the mean written out."""
    return 100 * z * (mean * (1 - mean) * examples + z**2 / 4) ** 0.5 / (examples + z**2)


def test_spread_is_of_the_images_and_of_the_seeds():
    """Standard deviation of 90, 92 and 97 is 3.6056; 4.30 is Student's quantile with two degrees of freedom."""
    values = (0.90, 0.92, 0.97)
    records = [record(seed=i, clean=v, bytes_disk=100 + i) for i, v in enumerate(values)]
    (row,) = report.rows(records)
    seeds = 4.30 * 3.6055513 / 3**0.5
    assert row.clean == pytest.approx((93.0, (half(0.93) ** 2 + seeds**2) ** 0.5))
    assert row.size == 101
    text = measure.markdown([*records, record("int8", latency=None)])
    assert "93.0 ±10.3" in text
    assert "sqrt(w² + t² s² / n)" in text
    assert "Several seeds have 1 of 2 rows: dense (3)." in text
    assert "seed 0, 1, 2" in text


def test_seeds_that_agree_leave_the_interval_of_the_images():
    (row,) = report.rows([record(seed=i) for i in range(3)])
    assert row.clean == pytest.approx((95.0, half(0.95)))
    many = [0.4, 0.6] * 6  # twelve seeds: the quantile is 2.201
    deviation = 100 * 0.1 * (12 / 11) ** 0.5
    assert report.spread(many, 100)[1] == pytest.approx(
        (half(0.5) ** 2 + (2.201 * deviation) ** 2 / 12) ** 0.5, rel=1e-2
    )


def test_a_line_that_is_read_twice_is_one_seed():
    once, again = record(clean=0.9), record(clean=0.8)
    (row,) = report.rows([once, record(seed=1, clean=0.8), again])
    assert row.clean[0] == pytest.approx(80.0)  # the last line of a seed counts
    assert [r.seed for r in row.records] == [0, 1]
    assert "Warning: 1 of 2 lines repeat a seed of a row" in measure.markdown([once, once])
    assert "repeat" not in measure.markdown([once, record(seed=1)])


def test_rows_of_one_name_are_told_apart_by_few_options():
    options = [{"rank": 2, "tuned": True}, {"rank": 4, "tuned": True}, {"rank": 4, "tuned": False, "kind": "a_b"}, {}]
    named = [row.name for row in report.rows([record("m", options=o) for o in options])]
    assert named == ["m, rank 2, tuned true", "m, rank 4, tuned true", "m, rank 4, tuned false", "m"]
    alone = [record("m", options=options[0]), record("n", options=options[1])]
    assert [row.name for row in report.rows(alone)] == ["m", "n"]
    several = [record("m", options={"kind": kind, "rank": 2}) for kind in "ab"]
    assert [row.name for row in report.rows(several)] == ["m, kind a", "m, kind b"]
    assert [row.name for row in report.rows([record(), record(examples=50)])] == [
        "dense, examples 100",
        "dense, examples 50",
    ]


def test_options_and_data_keep_rows_apart():
    records = [record("m", options={"sparsity": s}, data=d) for s in (0.5, 0.9) for d in ("a", "b")]
    assert len(report.rows(records)) == 4
    seeds = [record("m", options=options) for options in ({"sparsity": 0.5}, {"sparsity": 0.5, "newer": None})]
    assert len(report.rows(seeds)) == 1


def test_the_interval_of_one_seed_is_wilsons():
    """For 0 of n its upper end is z^2 / (n + z^2), twice the half-width."""
    (row,) = report.rows([record(clean=0.0)])
    assert 2 * row.clean[1] == pytest.approx(100 * 1.96**2 / (100 + 1.96**2))


def test_a_speed_up_needs_a_dense_time_of_the_same_run():
    header, lines = report.cells(four())
    column = header.index("vs dense")
    assert [line[column] for line in lines] == ["", "", "2.10x", "same"]


def test_no_records_no_report(tmp_path):
    for make in (measure.markdown, measure.table, lambda r: measure.plot(r, tmp_path / "p.png")):
        with pytest.raises(ValueError, match="at least one record"):
            make([])


def test_the_terminal_table_shows_the_same_cells():
    console = Console(width=200, file=io.StringIO())
    console.print(measure.table(four(), "Digits"))
    text = console.file.getvalue()
    for cell in ("Digits", "random 90 %", "8.0x", "75.0 ±8.4", "2.10x", "not measured", "12 % of gradients"):
        assert cell in text


def test_the_plot_is_a_png_with_a_label_for_every_row(tmp_path):
    from matplotlib.figure import Figure

    legends = []
    save = Figure.savefig

    def spy(figure, *args, **kwargs):
        legends.append([t.get_text() for t in figure.axes[0].get_legend().get_texts()])
        save(figure, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", spy)
        measure.plot(four(), tmp_path / "p.png", "Digits")
    data = (tmp_path / "p.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) >= (1000, 600)
    assert [text.split(":")[0] for text in legends[0]] == ["dense", "int8", "low rank", "random 90 %"]  # by size


def test_lines_round_trip(tmp_path):
    for r in four():
        measure.append(tmp_path / "r.jsonl", r)
    assert measure.read(tmp_path / "r.jsonl") == four()
    assert all(json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines())


def test_a_half_written_last_line_is_skipped_and_closed_by_the_next(tmp_path):
    file = tmp_path / "r.jsonl"
    measure.append(file, record("a"))
    with file.open("a") as f:
        f.write(json.dumps(record("b")._asdict())[:100])
    with pytest.warns(UserWarning, match="line 2, the last, is half-written"):
        assert [r.method for r in measure.read(file)] == ["a"]
    measure.append(file, record("c"))
    with pytest.warns(UserWarning, match="line 2 is half-written"):
        assert [r.method for r in measure.read(file)] == ["a", "c"]


def _append_many(file, name):
    for seed in range(20):
        measure.append(file, record(name, seed=seed))


def test_processes_may_append_to_one_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(tmp_path / "r.jsonl", name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted((r.method, r.seed) for r in measure.read(tmp_path / "r.jsonl")) == [
        (name, seed) for name in "ab" for seed in range(20)
    ]


def test_lines_with_other_fields_are_refused(tmp_path):
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps({**record()._asdict(), "flavour": 1}) + "\n")
    with pytest.raises(ValueError, match="line 1 has unknown or missing fields: flavour"):
        measure.read(file)
    with pytest.raises(ValueError, match="finite JSON values only"):
        measure.append(file, record(clean=float("nan")))


def test_seeds_that_met_other_attacks_are_one_row_and_it_is_said():
    other = record(seed=1, robust={"PGD": 0.55, "AA": 0.5}, worst=0.5)
    (row,) = report.rows([record(), other])
    assert {name: value[0] for name, value in row.robust.items()} == {"PGD": pytest.approx(65.0)}
    assert row.worst[0] == pytest.approx(62.5)
    told = (
        "* Warning: dense: its seeds did not meet the same attacks ({}). Those that not all of them met have no number"
    )
    assert f"{told.format('FGSM, PGD; AA, PGD')}, and the worst is of each seed's own." in measure.markdown(
        [record(), other]
    )
    for pair in ([record(), record(seed=1, robust={}, worst=None)], [record(robust={}, worst=None), record(seed=1)]):
        (row,) = report.rows(pair)
        assert (row.robust, row.worst) == ({}, None)
        assert ", and no worst." in measure.markdown(pair)
    assert "same attacks" not in measure.markdown([record(), record(seed=1)])


def test_a_bar_in_a_name_ends_no_cell():
    names = ("a|b", "a\nb")
    lines = measure.markdown([record(name) for name in names]).splitlines()
    header, rule, *rows = (line for line in lines if line.startswith("|"))
    assert [len(re.split(r"(?<!\\)\|", line)) for line in (rule, *rows)] == [header.count("|") + 1] * 3
    assert [line.split(" | ")[0].strip() for line in rows] == [r"| a\|b", "| a b"]


def test_a_method_timed_without_the_dense_network_has_no_ratio():
    header, (line,) = report.cells([record("int8")])
    assert (line[header.index("ms/batch")], line[header.index("vs dense")]) == ("2.00 (1.80-2.50)", "")


def test_environment_names_versions_and_device():
    found = measure.environment()
    assert set(found) == {"versions", "device", "commit"}
    assert re.match(r"\d+\.\d+", found["versions"]["jax"])
    assert found["device"].split(":")[0] in ("cpu", "gpu", "tpu")
    assert found["commit"] is None or re.match(r"[0-9a-f]{40}(\+changes)?$", found["commit"])


def test_a_network_that_was_not_attacked_has_no_robust_number(tmp_path):
    """Also in lines that wrote its clean accuracy in that place."""
    for worst in (None, 0.95):
        alone = record(robust={}, worst=worst)
        measure.append(tmp_path / f"{worst}.jsonl", alone)
        assert measure.read(tmp_path / f"{worst}.jsonl") == [alone]
        page = measure.markdown([alone])
        header, line = (next(x for x in page.splitlines() if x.startswith(f"| {n}")) for n in ("method", "dense"))
        cells = dict(zip(*([c.strip() for c in x.split("|")] for x in (header, line))))
        assert cells["worst %"] == ""
        assert cells["clean %"].startswith("95.0")
        assert "Attacks: none was run" in page
        with pytest.raises(ValueError, match="no attack was run on 'dense'"):
            measure.plot([alone], tmp_path / "no.png")
    both = measure.markdown([record(), record("int8", robust={}, worst=None, latency=None)])
    assert "Attacks: linf" in both
