"""The examples in docstrings and in the pages of `docs/` run, and print what they say."""

import doctest
import importlib
import pathlib
import re
import shlex

import pytest

from spartax import cli

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = ROOT / "compression"
COMMANDS = ROOT / "docs" / "command_line.md"
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if ">>> " in page.read_text()]
MODULES = [file for file in sorted(SOURCE.rglob("*.py")) if ">>> " in file.read_text()]


def run(*tests):
    """Run the examples; what differs is in the failure."""
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in tests:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, monkeypatch):
    monkeypatch.chdir(ROOT)  # they name files of the repository
    text = page.read_text()
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    test = doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), 0)
    assert len(test.examples) == len(re.findall(r"^>>> ", text, re.MULTILINE)), f"{page}: an example outside ```python"
    run(test)


def test_the_commands_of_the_page_print_what_it_says(tmp_path, monkeypatch, capsys):
    """Those of its `console` blocks in turn, in a folder beside the files of the repository."""
    text = COMMANDS.read_text()
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == text.count("\n$ spartax ")
    for block in blocks:
        command, told = re.match(r"\$ spartax ((?:.*\\\n)*.*)\n((?s:.*))", block).groups()
        assert cli.main(shlex.split(command.replace("\\\n", ""))) == 0
        printed = capsys.readouterr().out
        assert doctest.OutputChecker().check_output(told, printed, doctest.ELLIPSIS), f"{command}\n{printed}"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_the_examples_of_docstrings_run(file):
    module = importlib.import_module(".".join(file.relative_to(SOURCE).with_suffix("").parts))
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, globs={})
    found = sum(len(test.examples) for test in tests)
    assert found == len(re.findall(r"^\s*>>> ", file.read_text(), re.MULTILINE)), f"{file}: an example nobody finds"
    run(*tests)
