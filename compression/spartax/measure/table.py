"""The table of a report on a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from spartax.measure import report
from spartax.measure.record import Record


def table(records: Sequence[Record], title: str = "") -> Table:
    """An aligned `rich` table of records; baselines are dim, the notes stand under it.

    Args:
      records: at least one.
      title: printed above.

    Raises:
      ValueError: no records.
    """
    if not records:
        raise ValueError("records must hold at least one record; got none.")
    header, lines = report.cells(records)
    caption = "\n".join(report.notes(records))
    shown = Table(title=title or None, caption=caption, title_justify="left", caption_justify="left", box=SIMPLE_HEAD)
    for number, name in enumerate(header):
        shown.add_column(name, justify="right" if number else "left", overflow="fold", min_width=0 if number else 12)
    for row, line in zip(report.rows(records), lines):
        shown.add_row(*line, style="" if row.records[0].role == "method" else "dim")
    return shown
