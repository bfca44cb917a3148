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

    Lines of something else, such as the log of a training, are left out, and so is a file that cannot be read; the
    error output names them.

    Raises:
      ValueError: there is none.
    """
    groups: dict[str, list[Record]] = {}
    for record in (record for file in sorted(folder.rglob("*.jsonl")) for record in _lines(file)):
        same = json.dumps([record.model, record.data, record.threat, record.examples])
        groups.setdefault(same, []).append(record)
    if not groups:
        raise ValueError(f"{folder} holds no results: no line in any *.jsonl file in it or below")
    return list(groups.values())


def of_command(program: str, arguments: Sequence[str]) -> tuple[pathlib.Path, list[list[Record]]]:
    """The one folder that a command line names, and what `read` gives of it.

    Raises:
      ValueError: not one argument; there are no records.
    """
    if len(arguments) != 1:
        raise ValueError(f"{program} takes one folder")
    return pathlib.Path(arguments[0]), read(pathlib.Path(arguments[0]))


def _lines(file: pathlib.Path) -> list[Record]:
    records: list[Record] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            records = lines.read(file, skip=True)
        except (ValueError, OSError) as error:
            warnings.warn(f"{file} was left out: {error}", stacklevel=1)
    for warning in caught:
        print(f"{warning.message}", file=sys.stderr)
    return records


def written(folder: pathlib.Path, groups: Sequence[Sequence[Record]], title: str) -> list[pathlib.Path]:
    """Write everything; gives the files."""
    parts, files = [f"# {title}\n"], []
    for records, slug in zip(groups, _slugs(groups)):
        points = comparison.points(records)
        heading = figures.heading(points)
        drawn = [f"{slug}-{name}.png" for name in PICTURES]
        drawn = [file for file, draw in zip(drawn, PICTURES.values()) if draw(points, folder / file, heading)]
        verdicts = "\n".join(f"* {line}" for line in comparison.verdicts(points))
        images = "\n".join(f"![{name}]({name})" for name in drawn)
        parts.append(f"{markdown(records, heading).replace('# ', '## ', 1)}\n{verdicts}\n\n{images}\n")
        files += [folder / name for name in drawn]
    (folder / "report.md").write_text("\n".join(parts), encoding="utf-8")
    (folder / "report.html").write_text(page(groups, title), encoding="utf-8")
    return [folder / "report.md", folder / "report.html", *files]


def _slugs(groups: Sequence[Sequence[Record]]) -> list[str]:
    """A name for the pictures of each group: the threat is in it where there are several, a number where it must be."""
    firsts = [group[0] for group in groups]
    names = [f"{first.model} {first.data} {first.examples}" for first in firsts]
    threats = [f"{first.threat['norm']} eps{first.threat['eps']:.4g}" for first in firsts]
    names = [f"{n} {threat}" if names.count(n) > 1 else n for n, threat in zip(names, threats)]
    slugs = [re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") for name in names]
    return [f"{s}-{slugs[:i].count(s) + 1}" if s in slugs[:i] else s for i, s in enumerate(slugs)]
