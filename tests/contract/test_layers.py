"""Imports go one way, and the house keeps its size."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2] / "compression" / "spartax"
FILES = sorted(ROOT.rglob("*.py"))

# layer -> the layers it may import from (besides itself)
BASE = {"records", "checks", "catalog", "knapsack"}
KERNELS = BASE | {"kernels"}
ARRAYS = KERNELS | {"arrays", "tree"}
PROGRAM = ARRAYS | {"program", "gradients"}
ALLOWED = {
    "records": set(),
    "checks": {"records"},
    "catalog": {"checks"},
    "knapsack": {"checks"},
    "sharding": {"checks"},
    "gradients": ARRAYS | {"program"},  # convolutions whose gradients are fast inside loops
    "kernels": BASE,
    "arrays": KERNELS,
    "tree": KERNELS | {"arrays"},
    "program": ARRAYS,
    "prune": PROGRAM,
    "lowrank": PROGRAM,
    "quantize": PROGRAM,
    "attacks": PROGRAM | {"sharding"},
    "models": BASE,
    "data": BASE,
    "chain": PROGRAM,
    "compress": PROGRAM | {"chain"},
    "correct_bias": PROGRAM,
    "trees": ARRAYS,
    "checkpoint": PROGRAM | {"trees"},
    "export": PROGRAM | {"trees", "checkpoint"},
    "cli": {"*"},
    "train": PROGRAM | {"attacks", "chain", "checkpoint", "compress", "sharding", "trees"},
    "measure": PROGRAM | {"attacks", "compress", "prune", "sharding"},
    "__init__": {"*"},
}


def layer(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_layers(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} if node.module.count(".") else {f"{node.module}.{a.name}" for a in node.names}
    return {name.split(".")[1] for name in found if name.startswith("spartax.")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    own = layer(path)
    allowed = ALLOWED[own] | {own}
    if "*" not in allowed:
        assert imported_layers(path) <= allowed


def test_folders_without_a_layer_are_noticed():
    assert {layer(p) for p in FILES} <= set(ALLOWED)


def test_the_source_root_is_not_a_package():
    """Python 3.14 has a standard package called compression; ours must not shadow it."""
    assert not (ROOT.parent / "__init__.py").exists()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    module = ast.parse(text)
    docstrings = [
        (node.body[0].lineno, node.body[0].end_lineno)
        for node in ast.walk(module)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
    ]
    in_docstring = {line for a, b in docstrings for line in range(a, b + 1)}
    code = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#") and number not in in_docstring
    ]
    assert len(code) <= 200
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef):
            body = [n for n in code if node.body[0].lineno <= n <= node.end_lineno]
            assert len(body) <= 40, f"{node.name} has {len(body)} lines of code"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_public_jax(path):
    assert "jax._src" not in path.read_text()
