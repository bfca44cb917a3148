"""The benchmarks run; their numbers are for people, not for tests."""

import json
import sys

import pytest

from experiments.bench import __main__ as bench


def test_benchmarks_are_found_by_file_name():
    assert {"compressed", "fast_gradients", "lowrank", "threshold"} <= set(bench.known())


def test_rows_are_printed_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["bench", "lowrank", "threshold", "--quick", "--out", str(tmp_path / "rows.jsonl")]
    )
    assert bench.main() == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [r["bench"] for r in rows] == ["lowrank"] * 3 + ["threshold"]
    assert all(r["time"][0] > 0 and r["base"][0] > 0 for r in rows)
    assert "rank 32" in capsys.readouterr().out


def test_unknown_benchmark_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "nothing"])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == 2
    assert "there are " in capsys.readouterr().err
