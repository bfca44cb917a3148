"""The benchmarks run; their numbers are for people, not for tests."""

import json
import sys

import pytest

from experiments.bench import __main__ as bench


def test_benchmarks_are_found_by_file_name():
    assert {"compressed", "fast_gradients", "lowrank", "threshold"} <= set(bench.known())


def rows_of(names, folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", *names, "--quick", "--out", str(folder / "rows.jsonl")])
    assert bench.main() == 0
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert all(r["time"][0] > 0 and r["base"][0] > 0 for r in rows)
    return rows


def test_rows_are_printed_and_written(tmp_path, monkeypatch, capsys):
    rows = rows_of(["qat", "threshold"], tmp_path, monkeypatch)
    assert [r["bench"] for r in rows] == ["qat"] * 2 + ["threshold"]
    assert rows[2]["name"] in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.nightly
def test_rows_of_training(tmp_path, monkeypatch):
    """Passes, compile times and memory, each against standard steps."""
    rows = rows_of(["training"], tmp_path, monkeypatch)
    assert [r["baseline"] for r in rows] == [
        "2 standard steps",
        "11 standard steps",
        *["standard"] * 2,
        "1 standard steps",
    ]
    assert all("images/s" in r["note"] for r in rows[:2])
    assert "donation spares" in rows[4]["note"]


@pytest.mark.nightly
def test_rows_of_devices(tmp_path, monkeypatch):
    """A process of its own has the devices: 2, 4 and 8 of them, steps and attacks, weights replicated and split."""
    rows = rows_of(["devices"], tmp_path, monkeypatch)
    assert len(rows) == 12
    assert {r["baseline"] for r in rows} == {"1 device"}
    assert rows[-1]["name"] == "MLP of 3 x 64, batch 16, attack, weights split: 8 devices"


@pytest.mark.nightly
def test_rows_of_gptq_and_low_rank(tmp_path, monkeypatch, capsys):
    rows = rows_of(["gptq", "lowrank"], tmp_path, monkeypatch)
    assert [r["bench"] for r in rows] == ["gptq"] * 2 + ["lowrank"] * 6
    assert rows[2]["name"] == "4 layers of 32 x 64 at rank 8: gram_svd"
    assert "rank 32" in rows[4]["name"]
    assert "break-even rank" in rows[7]["note"]
    printed = capsys.readouterr().out
    assert "NumPy SVD, layer by layer" in printed
    assert "multiply-adds" in printed


@pytest.mark.nightly
def test_rows_of_removed_channels(tmp_path, monkeypatch):
    rows = rows_of(["shrink"], tmp_path, monkeypatch)
    networks = ["ResNet-8"] * 4 + ["VGG-8-BN"] * 2 + ["WRN-10-2"] * 4 + ["ViT"] * 4
    assert [r["name"].startswith(name) for r, name in zip(rows, networks, strict=True)] == [True] * 14
    fewer = [float(r["note"].split("x")[0]) for r in rows]
    assert all(1.4 < times < 5 for times in fewer)
    assert fewer[:4] == [fewer[0]] * 2 + [fewer[2]] * 2
    assert fewer[2] > 1.5 * fewer[0]


def test_rows_of_kernels_are_chosen(tmp_path, monkeypatch, capsys):
    chosen = ["--cases", "int8 per", "64 blocks, 90", "3 x 3", "--batch", "2", "--passes", "forward", "input gradient"]
    monkeypatch.setattr(sys, "argv", ["bench", "kernels", "--quick", *chosen, "--out", str(tmp_path / "rows.jsonl")])
    assert bench.main() == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert ["int8" in r["name"] for r in rows] == [False, False, True, True, False]
    assert rows[4]["name"] == "3 x 3 convolution, 64 x 64 blocks, 90 % sparse, 16 features, batch 2: by patches"
    assert rows[4]["figures"]["GFLOP"] == pytest.approx(2 * 14 * 4 * 4 * 2 * 16 * 16 / 1e9)  # 14 of 144 blocks
    assert rows[4]["note"].startswith("block-sparse matmul, xla")
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
