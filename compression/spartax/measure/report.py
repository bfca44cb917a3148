"""Tables from records: nothing in them is typed by hand."""

import json
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from spartax.measure.record import Record, chosen


class Row(NamedTuple):
    """Records that differ only in their seed, put together.

    Attributes:
      records: the records.
      name: method, as shown.
      size: mean bytes on disk.
      clean: accuracy without attack and its spread, both in percent.
      robust: attack name -> the same after the attack.
      worst: the same after the worst attack of each example; None where no attack was run.
    """

    records: tuple[Record, ...]
    name: str
    size: float
    clean: tuple[float, float]
    robust: dict[str, tuple[float, float]]
    worst: tuple[float, float] | None


def rows(records: Sequence[Record]) -> list[Row]:
    """One row for every network and method, seeds put together, in order of first appearance."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        same = [record.model, record.data, record.method, record.role, chosen(record.options), record.threat]
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(record)
    return [_row(group) for group in groups.values()]


def _row(group: list[Record]) -> Row:
    first = group[0]
    robust = {name: spread([r.robust[name] for r in group], first.examples) for name in first.robust}
    clean = spread([r.clean for r in group], first.examples)
    attacked = [r.worst for r in group if r.robust and r.worst is not None]  # no attack leaves no robust number
    worst = spread(attacked, first.examples) if len(attacked) == len(group) else None
    return Row(tuple(group), first.method, statistics.fmean(r.bytes_disk for r in group), clean, robust, worst)


def spread(values: list[float], examples: int) -> tuple[float, float]:
    """Mean and standard deviation over seeds; of one seed, the value and the 95 % half-width from `examples` images."""
    mean = statistics.fmean(values)
    if len(values) > 1:
        return 100 * mean, 100 * statistics.stdev(values)
    z = 1.96  # half the length of Wilson's interval
    width = z / (1 + z**2 / examples) * (mean * (1 - mean) / examples + z**2 / (4 * examples**2)) ** 0.5
    return 100 * mean, 100 * width


def cells(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table as text.

    Columns: method, bytes on disk, how many times smaller than the dense network, multiply-adds (thousands), clean
    and attacked accuracy in percent, milliseconds for a batch, and how many times faster than the dense network in the
    same run. A speed that was not measured is left out, one within the spread is called the same.
    """
    table = rows(records)
    attacks = list(dict.fromkeys(name for row in table for name in row.robust))
    dense = {(r.model, r.data): row.size for row in table for r in row.records if r.role == "dense"}
    header = ["method", "bytes", "smaller", "MACs k", "nonzero k", "clean %", *(f"{name} %" for name in attacks)]
    header += ["worst %", "ms/batch", "vs dense"]
    lines = []
    for row in table:
        first = row.records[0]
        full = dense.get((first.model, first.data))
        smaller = f"{full / row.size:.1f}x" if full else ""
        macs = [f"{first.macs[kind] / 1000:,.0f}" for kind in ("run", "nonzero")]
        accuracies = [row.clean, *(row.robust.get(name) for name in attacks), row.worst]
        shown = [f"{a[0]:.1f} ±{a[1]:.1f}" if a else "" for a in accuracies]
        lines.append([row.name, f"{row.size:,.0f}", smaller, *macs, *shown, *_times(row)])
    return header, lines


def _times(row: Row) -> list[str]:
    """Milliseconds with quartiles, and the dense time of the same run divided by it where the quartiles do not meet."""
    measured = [r.latency for r in row.records if r.latency]
    if not measured:
        return ["not measured", ""]
    low, median, high = (1000 * statistics.fmean(m[name] for m in measured) for name in ("low", "median", "high"))
    if row.records[0].role == "dense":
        return [f"{median:.2f} ({low:.2f}-{high:.2f})", ""]
    ratio = statistics.fmean(m["dense"]["median"] / m["median"] for m in measured)
    apart = all(m["dense"]["low"] > m["high"] or m["dense"]["high"] < m["low"] for m in measured)
    return [f"{median:.2f} ({low:.2f}-{high:.2f})", f"{ratio:.2f}x" if apart else "same"]


def threat(record: Record) -> str:
    """The threat in words: `linf, eps 0.1 (1.6/16)`."""
    eps, levels = record.threat["eps"], record.threat["levels"]
    return f"{record.threat['norm']}, eps {eps:.3g} ({eps * levels:.3g}/{levels})"


def notes(records: Sequence[Record]) -> list[str]:
    """What the columns mean, and under which conditions they were measured."""
    first, seeds = records[0], sorted({r.seed for r in records})
    spread = "standard deviation over seeds" if len(seeds) > 1 else f"95 % interval from {first.examples} images"
    lines = [
        f"Network {first.model} on {first.examples} images of {first.data}; seed {', '.join(map(str, seeds))}.",
        f"Attacks: {threat(first)} of the pixel range; 'worst' counts an image as robust only if every attack failed."
        if any(r.robust for r in records)
        else "Attacks: none was run, so nothing here says how robust a network is.",
        f"± is the {spread}.",
        "bytes: the checkpoint as written to disk, headers included; smaller: dense bytes divided by it.",
        "MACs k: thousands of multiply-adds really run for one image; nonzero: left without multiplications by zeros.",
    ]
    batch = next((r.latency["batch"] for r in records if r.latency), None)
    if batch:
        lines.append(
            f"ms/batch: {batch} images, median (quartiles), timed in turns with the dense network on {first.device}; "
            "vs dense: above 1 is faster, 'same' where the quartiles meet."
        )
    doubts = sorted({f"{r.method}: {w}" for r in records for w in r.warnings})
    return lines + [f"Warning: {doubt}" for doubt in doubts]


def markdown(records: Sequence[Record], title: str = "Results") -> str:
    """A Markdown report: table and notes."""
    if not records:
        raise ValueError("records must hold at least one record; got none.")
    header, lines = cells(records)
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]
    body = [_line(line, widths) for line in [header, rule, *lines]]
    return "\n".join([f"# {title}", "", *body, "", *(f"* {note}" for note in notes(records)), ""])


def _line(line: list[str], widths: list[int]) -> str:
    first = line[0].ljust(widths[0])
    return "| " + " | ".join([first, *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]) + " |"
