"""The pages of a study: numbers from lines, seeds put together."""

import json

import pytest

from experiments import tables
from spartax import measure


def line(label, worst, size, seed=0, role="method", **options):
    fields = dict.fromkeys(measure.Record._fields)
    about = {"method": label, "role": role, "model": "net", "data": "set", "seed": seed}
    numbers = {
        "examples": 100,
        "bytes_disk": size,
        "clean": 0.9,
        "worst": worst,
        "robust": {"PGD": worst},
        "sparsity": {},
    }
    more = {"macs": {"dense": 10, "run": 10, "nonzero": 10}, "threat": {"norm": "linf", "eps": 0.1, "levels": 255}}
    rest = {"broken_by": {}, "warnings": [], "versions": {}, "device": "cpu", "commit": None, "seconds": 1.0}
    return measure.Record(**fields | about | numbers | more | rest | {"options": options})


def test_a_page_has_families_down_and_operating_points_across_the_largest_first(tmp_path, capsys):
    records = [
        line("int4", 0.5, 1000, method="int", bits=4),
        line("dense", 0.6, 8000, method="dense", role="dense"),
        line("int8", 0.6, 2000, method="int", bits=8),
        line("int8", 0.4, 2000, seed=1, method="int", bits=8),
        line("half, 50%", 0.3, 1400, method="half"),
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r._asdict()) + "\n" for r in records))
    assert tables.main([str(tmp_path)]) == 0
    page = (tmp_path / "net.md").read_text()
    # 60 and 40 %: mean 50, Wilson's half-width 9.6 of 100 images, 12.71 * 14.14 / sqrt(2) of two seeds
    spread = (9.6**2 + 127.1**2) ** 0.5
    assert f"| int | int8: 50.0 ±{spread:.1f} (90.0) at 2 | int4: 50.0 ±9.6 (90.0) at 1, seeds: 1 |" in page
    assert "| dense | 60.0 ±9.4 (90.0) at 8, seeds: 1 |  |" in page
    assert "| half | 50%: 30.0 ±8.8 (90.0) at 1, seeds: 1 |  |" in page
    assert page.index("| dense |") < page.index("| int |")  # though it was measured later
    assert "seeds 0, 1" in page
    assert "at most 1/8 of dense: only int4 (50.0 ±9.6 %) was measured." in page
    assert (tmp_path / "net.png").stat().st_size > 5000


@pytest.mark.parametrize("name", ["net.md", "net.png"])
def test_a_folder_that_takes_no_files_is_said(tmp_path, capsys, name):
    measure.append(tmp_path / "a.jsonl", line("dense", 0.6, 8000, role="dense"))
    (tmp_path / name).symlink_to("/dev/full")
    assert tables.main([str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err == f"cannot write into {tmp_path}: [Errno 28] No space left on device\n"
    assert said.out == ""
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert tables.main([str(tmp_path)]) == 2
    assert f"cannot write into {tmp_path}: [Errno 21]" in capsys.readouterr().err


def test_a_bar_in_a_name_ends_no_cell(tmp_path):
    points = tables.comparison.points([line("a|b, 50%", 0.6, 8000, method="a|b")])
    assert tables.table(points)[2] == r"| a\|b | 50%: 60.0 ±9.4 (90.0) at 8 |"


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_one_folder_is_wanted(arguments, capsys):
    assert tables.main(arguments) == 2
    assert "one folder" in capsys.readouterr().err


def test_a_folder_without_lines(tmp_path, capsys):
    assert tables.main([str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err
