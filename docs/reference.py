"""The API reference, from the docstrings: `python docs/reference.py [FOLDER]` writes HTML pages with a search box.

Needs `pip install -e '.[docs]'`. One page for each module that users import, with every public function in it, also
those that are found by their file name.
"""

import importlib
import pathlib
import sys
from types import ModuleType
from typing import Any

FACES = ("prune", "lowrank", "quantize", "attacks", "train", "measure", "program", "arrays", "data", "models")
OTHERS = ("sharding", "export", "checkpoint", "records", "tree")  # plain modules: all that is public in them


def offered(module: ModuleType) -> dict[str, Any]:
    """What a module offers by name: its `__all__` and the plugs that it finds by their files; no modules."""
    names = {*module.__all__, *(name for name in dir(module) if name not in vars(module))}
    found = {name: getattr(module, name) for name in sorted(names)}
    return {name: value for name, value in found.items() if not isinstance(value, ModuleType)}


def main(folder: str = "site/reference") -> None:
    """Write the pages."""
    import pdoc

    for name in ("spartax", *(f"spartax.{face}" for face in FACES)):
        module = importlib.import_module(name)
        found = offered(module)
        vars(module).update(found, __all__=list(found))  # pdoc looks for plain attributes
    pdoc.render.configure(docformat="google", show_source=False)
    pages = (f"spartax.{page}" for page in (*FACES, *OTHERS))
    pdoc.pdoc("spartax", r"!spartax\.", *pages, r"!spartax\.\w+\.", output_directory=pathlib.Path(folder))
    print(f"{folder}/index.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
