"""`python -m experiments.report FOLDER`: tables, pictures and one HTML page from the lines in a folder.

Writes `report.md`, `report.html` and PNG files into the folder, from all `*.jsonl` files in it and below. Networks,
data sets, threats and numbers of images are kept apart. Exit code 0; 2: nothing to report, or a folder
that takes no files.
"""

import argparse
import json
import pathlib
import re
import sys
import warnings
from collections.abc import Sequence

from spartax import measure
from spartax.measure import comparison, figures

PROGRAM = "python -m experiments.report"
PICTURES = {
    "accuracy_vs_cost": figures.fronts,
    "security_curves": figures.security_curves,
    "masking": figures.masking,
    "layer_sparsity": figures.layer_sparsity,
}


def main(arguments: Sequence[str]) -> int:
    """Write the report of a folder; returns the exit code."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=pathlib.Path, help="folder with results.jsonl, at any depth")
    parser.add_argument("--title", default="Robust compression", help="of the page")
    given = parser.parse_args(arguments)
    try:
        groups = read(given.folder)
        print("\n".join(str(path) for path in written(given.folder, groups, given.title)))
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    return 0


def read(folder: pathlib.Path) -> list[list[measure.Record]]:
    """The records below a folder, apart by network, data, threat and number of images.

    Raises:
      ValueError: there is none, or a line has other fields.
    """
    groups: dict[str, list[measure.Record]] = {}
    for file in sorted(folder.rglob("*.jsonl")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            records = measure.read(file)
        for warning in caught:
            print(f"{warning.message}", file=sys.stderr)
        for record in records:
            same = json.dumps([record.model, record.data, record.threat, record.examples])
            groups.setdefault(same, []).append(record)
    if not groups:
        raise ValueError(f"{folder} holds no results: no line in any *.jsonl file in it or below")
    return list(groups.values())


def written(folder: pathlib.Path, groups: Sequence[Sequence[measure.Record]], title: str) -> list[pathlib.Path]:
    """Write everything; gives the files."""
    parts, files = [f"# {title}\n"], []
    for records in groups:
        points = comparison.points(records)
        heading = figures.heading(points)
        slug = re.sub(r"[^a-z0-9]+", "-", f"{records[0].model} {records[0].data} {records[0].examples}".lower()).strip(
            "-"
        )
        if len(groups) > 1 and len({(g[0].model, g[0].data, g[0].examples) for g in groups}) < len(groups):
            slug += f"-eps{records[0].threat['eps']:.4g}"
        pictures = {f"{slug}-{name}.png": draw for name, draw in PICTURES.items()}
        for name, draw in pictures.items():
            draw(points, folder / name, heading)
        verdicts = "\n".join(f"* {line}" for line in comparison.verdicts(points))
        images = "\n".join(f"![{name}]({name})" for name in pictures)
        parts.append(f"{measure.markdown(records, heading).replace('# ', '## ', 1)}\n{verdicts}\n\n{images}\n")
        files += [folder / name for name in pictures]
    (folder / "report.md").write_text("\n".join(parts))
    (folder / "report.html").write_text(measure.page(groups, title), encoding="utf-8")
    return [folder / "report.md", folder / "report.html", *files]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
