"""The progress bar of an evaluation."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from rich import progress as rich


class Bar(NamedTuple):
    """A progress bar for work that shrinks while it is done.

    Attributes:
      bar: rich's, which shows nothing when disabled.
      task: its only task.
    """

    bar: rich.Progress
    task: rich.TaskID

    def work(self, done: float) -> None:
        """So much has been done."""
        self.bar.advance(self.task, done)

    def show(self, name: str, robust: float, left: float) -> None:
        """Name of the attack, robust accuracy so far, and the work left if no example breaks any more."""
        done = self.bar.tasks[0].completed
        self.bar.update(self.task, description=name, total=done + left, robust=f"robust {100 * robust:.2f} %")

    def say(self, line: str) -> None:
        """A line above the bar."""
        if not self.bar.disable:
            self.bar.console.print(line, highlight=False)


@contextlib.contextmanager
def progress(verbose: bool) -> Iterator[Bar]:
    """The bar, shown while inside when `verbose`."""
    columns = (
        rich.TextColumn("{task.description:>8}"),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TextColumn("{task.fields[robust]}"),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, disable=not verbose, transient=True) as bar:
        yield Bar(bar, bar.add_task("", total=None, robust=""))
