"""Tables from records: nothing in them is typed by hand."""

import json
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from spartax.measure.record import Record, chosen

Z = 1.96  # 95 % of the normal distribution are within Z deviations; of Student's, with 1, 2, ... degrees of freedom:
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
LISTED = 8  # names in a note


class Row(NamedTuple):
    """Records that differ only in their seed, put together.

    Attributes:
      records: one for each seed.
      name: method, as shown; with what tells it from other rows where several have the same.
      size: mean bytes on disk.
      clean: accuracy without attack and its spread, both in percent.
      robust: attack name -> the same after the attack, of the attacks that were run on every seed.
      worst: the same after the worst attack of each example; None where no attack was run on one of the seeds.
    """

    records: tuple[Record, ...]
    name: str
    size: float
    clean: tuple[float, float]
    robust: dict[str, tuple[float, float]]
    worst: tuple[float, float] | None


def rows(records: Sequence[Record]) -> list[Row]:
    """One row for every network and method, seeds put together, in order of first appearance.

    A seed that is there twice, as a line of two files, counts once: the last line of it.
    """
    groups: dict[str, dict[int, Record]] = {}
    for record in records:
        same = json.dumps(sorted(_facts(record).items()))
        groups.setdefault(same, {})[record.seed] = record
    found = [_row(list(group.values())) for group in groups.values()]
    alike: dict[str, list[int]] = {}
    for number, row in enumerate(found):
        alike.setdefault(row.name, []).append(number)
    for numbers in alike.values():
        for number, more in zip(numbers, _told_apart([found[n].records[0] for n in numbers])):
            found[number] = found[number]._replace(name=", ".join([found[number].name, *more]))
    return found


def _facts(record: Record) -> dict[str, str]:
    """All that rows are told apart by, as JSON."""
    about = {name: getattr(record, name) for name in ("method", "model", "data", "examples", "role", "threat")}
    options = {f"option {name}": value for name, value in chosen(record.options).items()}
    return {name: json.dumps(value, sort_keys=True) for name, value in {**options, **about}.items()}


def _told_apart(records: Sequence[Record]) -> list[list[str]]:
    """For each record what tells it from the others in few words: `["rank 2"]`; nothing for one alone."""
    facts, names = [_facts(record) for record in records], []
    open_names = list(dict.fromkeys(name for fact in facts for name in fact))
    parts = lambda more: len({tuple(fact.get(name) for name in (*names, *more)) for fact in facts})  # noqa: E731
    while parts(()) < len(facts):  # ends, since no two records have the same facts
        names.append(max(open_names, key=lambda name: parts((name,))))
    return [[_word(name, fact[name]) for name in names if name in fact] for fact in facts]


def _word(name: str, value: str) -> str:
    return f"{name.removeprefix('option ').replace('_', ' ')} {value.strip(chr(34))}"


def _row(group: list[Record]) -> Row:
    first = group[0]
    common = [name for name in first.robust if all(name in r.robust for r in group)]
    robust = {name: spread([r.robust[name] for r in group], first.examples) for name in common}
    clean = spread([r.clean for r in group], first.examples)
    attacked = [r.worst for r in group if r.robust and r.worst is not None]  # no attack leaves no robust number
    worst = spread(attacked, first.examples) if len(attacked) == len(group) else None
    return Row(tuple(group), first.method, statistics.fmean(r.bytes_disk for r in group), clean, robust, worst)


def spread(values: Sequence[float], examples: int) -> tuple[float, float]:
    """Mean of the seeds and half of its 95 % interval, in percent: `sqrt(w^2 + (t s)^2 / n)`.

    `w` is half of Wilson's interval of the mean from `examples` images, `s` the standard deviation of the `n` seeds and
    `t` the quantile of Student's distribution with n - 1 degrees of freedom. All seeds are judged on the same images,
    so that more of them do not make `w` smaller, and equal ones do not make it go away. Of one seed there is `w` alone.
    """
    mean, seeds = statistics.fmean(values), len(values)
    images = Z / (1 + Z**2 / examples) * (mean * (1 - mean) / examples + Z**2 / (4 * examples**2)) ** 0.5
    between = _student(seeds - 1) * statistics.stdev(values) / seeds**0.5 if seeds > 1 else 0.0
    return 100 * mean, 100 * math.hypot(images, between)


def _student(freedom: int) -> float:
    return STUDENT[freedom - 1] if freedom <= len(STUDENT) else Z + 2.5 / freedom  # right to 1 %


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
        smaller = f"{full / row.size:.1f}x" if full and row.size else ""
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
    if row.records[0].role == "dense" or not all(m.get("dense") for m in measured):
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
    lines = [
        f"Network {first.model} on {first.examples} images of {first.data}; seed {', '.join(map(str, seeds))}.",
        f"Attacks: {threat(first)} of the pixel range; 'worst' counts an image as robust only if every attack failed."
        if any(r.robust for r in records)
        else "Attacks: none was run, so nothing here says how robust a network is.",
        *_spreads(records),
        *_differences(rows(records)),
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


def _spreads(records: Sequence[Record]) -> list[str]:
    """What ± is, and which rows have several seeds."""
    table, images = rows(records), f"the 95 % interval from {records[0].examples} images"
    several = [f"{row.name} ({len(row.records)})" for row in table if len(row.records) > 1]
    lines = [f"± is {images}." if not several else f"± is half of {images} and the seeds: sqrt(w² + t² s² / n)."]
    if several:
        lines[0] += (
            " w is half of Wilson's interval of the images, s the standard deviation of the n seeds, t of Student's "
            "distribution; of one seed it is w, which says nothing about other seeds."
        )
        more = f" and {len(several) - LISTED} more" if len(several) > LISTED else ""
        lines.append(f"Several seeds have {len(several)} of {len(table)} rows: {'; '.join(several[:LISTED])}{more}.")
    repeated = len(records) - sum(len(row.records) for row in table)
    if repeated:
        lines.append(f"Warning: {repeated} of {len(records)} lines repeat a seed of a row; the last one counts.")
    return lines


def _differences(table: Sequence[Row]) -> list[str]:
    """A warning for every row whose seeds did not meet the same attacks."""
    lines = []
    for row in table:
        sets = list(dict.fromkeys(", ".join(sorted(r.robust)) or "none" for r in row.records))
        if len(sets) > 1:
            worst = "no worst" if row.worst is None else "the worst is of each seed's own"
            lines.append(
                f"Warning: {row.name}: its seeds did not meet the same attacks ({'; '.join(sets)}). Those that not all "
                f"of them met have no number, and {worst}."
            )
    return lines


def escaped(text: str) -> str:
    """Text of a cell of a Markdown table, which neither a bar nor the end of a line ends."""
    return " ".join(text.replace("|", "\\|").splitlines())


def markdown(records: Sequence[Record], title: str = "Results") -> str:
    """A Markdown report: table and notes."""
    if not records:
        raise ValueError("records must hold at least one record; got none.")
    names, table = cells(records)
    header, *lines = [[escaped(cell) for cell in line] for line in (names, *table)]
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]
    body = [_line(line, widths) for line in [header, rule, *lines]]
    return "\n".join([f"# {title}", "", *body, "", *(f"* {note}" for note in notes(records)), ""])


def _line(line: list[str], widths: list[int]) -> str:
    first = line[0].ljust(widths[0])
    return "| " + " | ".join([first, *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]) + " |"
