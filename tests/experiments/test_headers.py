"""The header of every config file: which question, after whom, by which command, in which time, and which numbers."""

import functools
import pathlib
import re

import pytest

from experiments import run
from experiments.common import configs
from spartax import measure

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = [file for file in sorted((ROOT / "experiments").rglob("*.py")) if "def get_config(" in file.read_text()]
COMMAND = "python -m experiments.run "
NO_NUMBER = "not measured"


def parts(header):
    """The parts of a header by name; one goes on until the next begins."""
    names = "Question|Papers?|Command|Time|Expected"
    found = re.split(rf"^({names}): ", header, flags=re.MULTILINE)
    return {name.removesuffix("s"): text for name, text in zip(found[1::2], found[2::2], strict=True)}


@functools.cache
def lines(study):
    """What the study has measured."""
    files = [*study.glob("measured/*.jsonl"), *study.glob("weights/networks.jsonl")]
    return [record for file in files for record in measure.read(file)]


def name(file):
    return file.relative_to(ROOT / "experiments").with_suffix("").as_posix()


def test_the_config_files_of_all_studies_are_found():
    studies = {file.relative_to(ROOT / "experiments").parts[0] for file in FILES}
    assert studies == {"benchmark", "lowrank", "pruning", "quantization", "robust_training"}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_config_file_says_what_it_is_for(file):
    found = parts(configs.load_module(str(file), ()).__doc__)
    assert list(found) == ["Question", "Paper", "Command", "Time", "Expected"]
    assert "?" in found["Question"]
    for part in ("Time", "Expected"):
        assert re.search(r"\d", found[part]) or NO_NUMBER in found[part], part
    assert "CPU cores" in found["Time"] or NO_NUMBER in found["Time"]


@pytest.mark.parametrize("file", FILES, ids=name)
def test_the_command_of_a_header_gives_its_numbers(file):
    """Clean and worst are those of a committed line of this very run; without such a line no number is told."""
    found = parts(configs.load_module(str(file), ()).__doc__)
    assert found["Command"].startswith(f"{COMMAND}--config=experiments/{name(file)}.py")
    command = found["Command"].removeprefix(COMMAND).replace("--config=", f"--config={ROOT}/").split()
    config = run.parse(command)
    assert config.label
    rows = [r for r in lines(ROOT / "experiments" / name(file).split("/")[0]) if r.seed == config.values.seed]
    same = [r for r in rows if configs.identity(r.method, r.options, r.seed) == config.identity]
    same += [r for r in rows if r.method == config.label and "method" not in r.options]  # from before they had them all
    if not same:
        assert NO_NUMBER in found["Expected"]
        return
    told = set(re.findall(r"\d+\.\d(?= %| and)", found["Expected"]))
    assert any({f"{100 * x:.1f}" for x in (r.clean, r.worst) if x is not None} <= told for r in same)
