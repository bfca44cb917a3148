"""One line of a benchmark table."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from spartax import measure


class Row(NamedTuple):
    """A time beside its baseline, both measured in the same run.

    Attributes:
      name: what was timed.
      baseline: what it is compared with.
      time: seconds, median and quartiles.
      base: the same of the baseline.
      note: what the number must be read with (target, memory, ...).
      figures: more numbers, a column each.
    """

    name: str
    baseline: str
    time: measure.Latency
    base: measure.Latency
    note: str = ""
    figures: Mapping[str, float] | None = None

    @property
    def speedup(self) -> float:
        """How many times faster than the baseline."""
        return self.base.median / self.time.median


def compare(
    name: str, functions: Mapping[str, Callable[[], Any]], *, repeats: int, warmups: int = 2, note: str = ""
) -> Row:
    """Time two functions in turns; the first named is the subject, the second the baseline."""
    subject, baseline = functions
    times = measure.latency(functions, warmups=warmups, repeats=repeats)
    return Row(f"{name}: {subject}", baseline, times[subject], times[baseline], note)
