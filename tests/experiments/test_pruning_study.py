"""The study of pruning: what runs of one process share, its grid, and the methods under attack."""

import pathlib

from experiments import sweep

STUDY = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "pruning"


def test_the_grid_holds_every_criterion_with_every_allocation(capsys, tmp_path):
    assert sweep.main([str(STUDY / "sweep.py"), "--dry-run", f"--config.out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    for name in (
        "magnitude, pooled, 90%, trained",
        "random, lamp, 50%, re-estimated",
        "mad, rate_distortion, 95%, trained",
    ):
        assert f"  {name} statistics, seed 0" in printed
    assert "random, erk, 70%, trained statistics, seed 2" in printed
