"""`python -m experiments.report FOLDER`: tables, pictures and one HTML page from the lines in a folder.

Writes `report.md`, `report.html` and PNG files into the folder, from all `*.jsonl` files in it and below. Networks,
data sets, threats and numbers of images are kept apart. Exit code 0; 2: nothing to report, or a folder
that takes no files.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from spartax.measure.folder import read, written

PROGRAM = "python -m experiments.report"


def main(arguments: Sequence[str]) -> int:
    """Write the report of a folder; returns the exit code."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=pathlib.Path, help="folder with results.jsonl, at any depth")
    parser.add_argument("--title", default="Robust compression", help="of the page")
    given = parser.parse_args(arguments)
    try:
        groups = read(given.folder)
        print("\n".join(str(path) for path in written(given.folder, groups, given.title)))
    except ValueError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{PROGRAM}: cannot write into {given.folder}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
