"""The benchmarks run; their numbers are for people, not for tests."""

import json
import sys

import pytest

from experiments.bench import __main__ as bench


def test_benchmarks_are_found_by_file_name():
    assert {"compressed", "fast_gradients", "lowrank", "threshold"} <= set(bench.known())


def test_rows_are_printed_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["bench", "gptq", "lowrank", "qat", "threshold", "--quick", "--out", str(tmp_path / "rows.jsonl")]
    )
    assert bench.main() == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [r["bench"] for r in rows] == ["gptq"] * 2 + ["lowrank"] * 6 + ["qat"] * 2 + ["threshold"]
    assert all(r["time"][0] > 0 and r["base"][0] > 0 for r in rows)
    own = [r for r in rows if r["bench"] == "lowrank"]
    assert own[0]["name"] == "4 layers of 32 x 64 at rank 8: gram_svd"
    assert "rank 32" in own[2]["name"]
    assert "break-even rank" in own[5]["note"]
    printed = capsys.readouterr().out
    assert "NumPy SVD, layer by layer" in printed
    assert "multiply-adds" in printed


def test_rows_of_kernels_are_chosen(tmp_path, monkeypatch, capsys):
    chosen = ["--cases", "int8 per", "64 blocks, 90", "--batch", "2", "--passes", "forward", "input gradient"]
    monkeypatch.setattr(sys, "argv", ["bench", "kernels", "--quick", *chosen, "--out", str(tmp_path / "rows.jsonl")])
    assert bench.main() == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert ["int8" in r["name"] for r in rows] == [False, False, True, True]
    figures = rows[2]["figures"]
    assert figures["moved MB"] == pytest.approx((256 * 256 + 4 * 256 + 4 * 2 * 512) / 1e6)  # codes, scales, x and y
    assert figures["GFLOP"] == pytest.approx(2 * 2 * 256 * 256 / 1e9)
    assert rows[3]["figures"]["GFLOP"] == pytest.approx(2 * figures["GFLOP"])
    assert figures["reached"] == pytest.approx(figures["bound ms"] / (1e3 * rows[2]["time"][0]))
    assert "temp MB" in capsys.readouterr().out


def test_rows_are_chosen_of_kernels_only(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "lowrank", "--batch", "1"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "--batch" in capsys.readouterr().err


def test_unknown_benchmark_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "nothing"])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == 2
    assert "there are " in capsys.readouterr().err
