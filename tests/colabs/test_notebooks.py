"""Every notebook runs top to bottom in quick mode, stores no output, holds no method code, and can be found."""

import ast
import importlib.util
import pathlib
import re

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "colabs"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PICTURES = {"01": 3, "02": 3, "03": 3, "04": 3, "05": 3, "06": 3}
SAID = {
    "01": {"same logits after the round trip"},
    "02": {"it means left @ right", "same logits as its dense form", "same logits after the round trip"},
    "03": {"no route is believed alone"},
    "04": {"the front ends with the dense network or better"},
    "05": {"the first step agrees", "same mask on one device and on the mesh", "same verdict"},
    "06": {"contract holds"},
}


def code_of(cell):
    """The Python of a cell; a notebook command such as %pip counts as `pass`."""
    lines = cell.source.splitlines()
    return "\n".join(line[: len(line) - len(line.lstrip())] + "pass" if "%pip" in line else line for line in lines)


def method_code(source):
    """What a method would be made of: classes, and functions and loops of more than 8 lines; a notebook only calls."""
    long = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.For, ast.AsyncFor, ast.While)
    return [
        type(node).__name__
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) or (isinstance(node, long) and node.end_lineno - node.lineno >= 8)
    ]


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture
def quick(monkeypatch):
    """Few steps; the current folder is that of the notebooks, as it is where they are opened."""
    monkeypatch.setenv("SPARTAX_QUICK", "1")
    monkeypatch.chdir(FOLDER)
    return monkeypatch


def holds(path, printed):
    """What the notebook says about itself came out true."""
    said = dict(re.findall(r"^(.*): (True|False)$", printed, re.MULTILINE))
    assert said == dict.fromkeys(SAID[path.stem[:2]], "True")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stores_no_output_and_no_method_code(path):
    for cell in read(path).cells:
        if cell.cell_type != "code":
            continue
        assert not cell.outputs
        assert cell.execution_count is None
        assert method_code(code_of(cell)) == []


def test_method_code_is_noticed():
    body = "\n    x = 1" * 8
    for head, kind in (("def f():", "FunctionDef"), ("for i in y:", "For"), ("while y:", "While")):
        assert method_code(head + body) == [kind]
        assert method_code(head + body[: -len("\n    x = 1")]) == []
    assert method_code("class A:\n    pass") == ["ClassDef"]
    assert method_code("f = lambda: [" + "\n" * 8 + "]") == ["Lambda"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_is_listed_and_its_links_lead_to_files(path):
    assert f"({path.name})" in (FOLDER / "README.md").read_text()
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)\)", text)
    assert links
    assert all((FOLDER / link).exists() for link in links)


def installing():
    """The lines that install the package, the same in all notebooks; what pip is given is kept in `installed`."""
    found = {next(cell.source for cell in read(path).cells if cell.cell_type == "code") for path in NOTEBOOKS}
    end = "importlib.invalidate_caches()\n"
    (lines,) = {text[: f"{text}\n".index(end) + len(end)].rstrip("\n") for text in found}
    assert lines.count("pip") == 1
    return lines.replace('%pip install -q "{root}"', "installed = root")


@pytest.mark.parametrize("here", ["repository", "repository/colabs", "content"])
def test_the_first_cell_installs_from_the_repository_around_it_or_beside_it(here, tmp_path, monkeypatch):
    (tmp_path / "repository" / "compression" / "spartax").mkdir(parents=True)
    (tmp_path / "repository" / "colabs").mkdir()
    (tmp_path / "content" / "pictures").mkdir(parents=True)
    (tmp_path / "content" / "spartax-main").symlink_to(tmp_path / "repository")
    monkeypatch.chdir(tmp_path / here)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    names: dict = {}
    exec(installing(), names)
    assert names["installed"].samefile(tmp_path / "repository")


def test_the_first_cell_says_what_is_missing_where_there_is_no_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=f"clone or upload the repository of Spartax into {tmp_path}"):
        exec(installing(), {})


@pytest.mark.slow
def test_runs_in_a_kernel(quick):
    """The first one as a user runs it: a kernel of its own, pictures as outputs; `%pip` is not reached."""
    path = NOTEBOOKS[0]
    quick.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    book = read(path)
    NotebookClient(book, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    holds(path, "".join(output.get("text", "") for output in outputs))
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES["01"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda p: p.stem)
def test_runs_top_to_bottom(path, quick, capsys):
    """The others in this process, which has started JAX already: a kernel costs more than their cells."""
    shown = []

    def show():
        (figure,) = map(plt.figure, plt.get_fignums())
        figure.canvas.draw()
        assert figure.get_suptitle() or any(axis.get_title() for axis in figure.axes)
        shown.append(figure)
        plt.close(figure)

    quick.setattr(plt, "show", show)
    quick.setenv("XLA_FLAGS", "")  # what the notebook adds to it is taken back
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(read(path).cells):
        if cell.cell_type == "code":
            exec(compile(code_of(cell), f"{path.name}, cell {number}", "exec"), names)
    holds(path, capsys.readouterr().out)
    assert len(shown) == PICTURES[path.stem[:2]]
