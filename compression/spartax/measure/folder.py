"""The report of a folder: every `*.jsonl` file in it and below, networks, data, threats and numbers of images apart."""

import json
import pathlib
import re
import sys
import warnings
from collections.abc import Sequence

from spartax.measure import comparison, figures
from spartax.measure import record as lines
from spartax.measure.page import page
from spartax.measure.record import Record
from spartax.measure.report import markdown

PICTURES = {
    "accuracy_vs_cost": figures.fronts,
    "security_curves": figures.security_curves,
    "masking": figures.masking,
    "layer_sparsity": figures.layer_sparsity,
}


def read(folder: pathlib.Path) -> list[list[Record]]:
    """The records below a folder, apart by network, data, threat and number of images.

    Raises:
      ValueError: there is none, or a line has other fields.
    """
    groups: dict[str, list[Record]] = {}
    for file in sorted(folder.rglob("*.jsonl")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            records = lines.read(file)
        for warning in caught:
            print(f"{warning.message}", file=sys.stderr)
        for record in records:
            same = json.dumps([record.model, record.data, record.threat, record.examples])
            groups.setdefault(same, []).append(record)
    if not groups:
        raise ValueError(f"{folder} holds no results: no line in any *.jsonl file in it or below")
    return list(groups.values())


def written(folder: pathlib.Path, groups: Sequence[Sequence[Record]], title: str) -> list[pathlib.Path]:
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
        parts.append(f"{markdown(records, heading).replace('# ', '## ', 1)}\n{verdicts}\n\n{images}\n")
        files += [folder / name for name in pictures]
    (folder / "report.md").write_text("\n".join(parts))
    (folder / "report.html").write_text(page(groups, title), encoding="utf-8")
    return [folder / "report.md", folder / "report.html", *files]
