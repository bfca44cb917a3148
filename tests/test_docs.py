"""What the documents name exists, their links lead somewhere, and their tables are tables."""

import importlib
import inspect
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FACES = ("prune", "lowrank", "quantize", "attacks", "train", "program", "measure", "models", "export", "sharding", "sx")
DOCS = [page.relative_to(ROOT).as_posix() for page in sorted((ROOT / "docs").glob("*.md"))]
STUDIES = [page.relative_to(ROOT).as_posix() for page in sorted((ROOT / "experiments").rglob("*.md"))]


def anchors(text):
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["README.md", *DOCS])
def test_every_function_that_a_page_names_exists(page):
    text = (ROOT / page).read_text()
    named = {tuple(n.split(".")) for n in re.findall(rf"`((?:{'|'.join(FACES)})\.\w+)", text)}
    assert named or page.startswith("docs/")
    for face, name in sorted(named):
        module = importlib.import_module("spartax" if face == "sx" else f"spartax.{face}")
        assert hasattr(module, name), f"{page} names {face}.{name}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *DOCS, *STUDIES])
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", (ROOT / page).read_text()):
        file, _, heading = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        assert not heading or heading in anchors(target.read_text()), f"{page}: {link} is no heading"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *DOCS, *STUDIES])
def test_the_rows_of_a_table_have_the_cells_of_its_head(page):
    """A bar in a formula is a new cell to GitHub: write `\\vert` there."""
    for table in re.findall(r"(?:^\|.*\n?)+", (ROOT / page).read_text(), re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(cells) == 1, f"{page}: {table.splitlines()[0]}"


@pytest.mark.parametrize("page", DOCS)
def test_formulas_survive_markdown(page):
    """A backslash before a sign is an escape of Markdown's: `\\{` and `\\,` never reach the formula."""
    prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    formulas = re.findall(r"\$[^$\n]+\$", prose)
    assert not [formula for formula in formulas if re.search(r"\\[^A-Za-z]", formula)]
    assert "$" not in re.sub(r"`[^`\n]*`", "", re.sub(r"\$[^$\n]+\$", "", prose)).replace("$$", "")


@pytest.mark.slow
def test_the_reference_is_rendered_where_pdoc_is_installed(tmp_path):
    """In a process of its own: it puts what is found by file name into the modules themselves."""
    pytest.importorskip("pdoc")
    command = [sys.executable, str(ROOT / "docs" / "reference.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    page = (tmp_path / "spartax" / "prune.html").read_text()
    assert 'id="magnitude"' in page
    assert "Is Complexity" in page or "arXiv" in page
    assert (tmp_path / "search.js").stat().st_size > 10_000


def test_the_reference_has_every_public_function():
    reference = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    found = {face: reference["offered"](importlib.import_module(f"spartax.{face}")) for face in reference["FACES"]}
    assert {"prune", "magnitude", "pooled", "rigl"} <= set(found["prune"])
    assert {"pgd_at", "fit", "conadv"} <= set(found["train"])
    assert "criteria" not in found["prune"]  # a module, which is no page
    named = [
        (name, value)
        for names in found.values()
        for name, value in names.items()
        if inspect.isroutine(value) or inspect.isclass(value)
    ]
    assert not [name for name, value in named if not value.__doc__]
    public = {file.stem for file in (ROOT / "compression" / "spartax").glob("[a-z]*.py")}
    assert set(reference["OTHERS"]) <= public
