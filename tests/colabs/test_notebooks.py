"""Every notebook runs top to bottom in quick mode, stores no output and holds no method code."""

import ast
import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "colabs"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_of(cell):
    """The Python of a cell; a notebook command such as %pip counts as `pass`."""
    lines = cell.source.splitlines()
    return "\n".join(line[: len(line) - len(line.lstrip())] + "pass" if "%pip" in line else line for line in lines)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stores_no_output_and_no_method_code(path):
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        if cell.cell_type != "code":
            continue
        assert not cell.outputs
        assert cell.execution_count is None
        functions = [n for n in ast.walk(ast.parse(code_of(cell))) if isinstance(n, ast.FunctionDef)]
        assert all(f.end_lineno - f.lineno < 8 for f in functions)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs_top_to_bottom(path, monkeypatch):
    monkeypatch.setenv("SPARTAX_QUICK", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=300, kernel_name="python3").execute()
    printed = "".join(o.get("text", "") for c in book.cells for o in c.get("outputs", []))
    pictures = sum("image/png" in o.get("data", {}) for c in book.cells for o in c.get("outputs", []))
    assert "same logits after the round trip: True" in printed
    assert pictures == 3
