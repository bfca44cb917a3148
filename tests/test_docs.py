"""What the documents name exists."""

import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FACES = ("prune", "lowrank", "quantize", "attacks", "train", "program", "measure", "models", "export", "sx")


@pytest.mark.parametrize("page", ["README.md", "docs/systems.md"])
def test_every_function_that_a_page_names_exists(page):
    text = (ROOT / page).read_text()
    named = {tuple(n.split(".")) for n in re.findall(rf"`((?:{'|'.join(FACES)})\.\w+)", text)}
    assert named
    for face, name in sorted(named):
        module = importlib.import_module("spartax" if face == "sx" else f"spartax.{face}")
        assert hasattr(module, name), f"{page} names {face}.{name}"


def test_links_lead_to_files():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f"{page} links to {target}"
