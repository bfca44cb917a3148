"""The command line `spartax`; see `spartax --help`."""

from spartax.cli.run import main

__all__ = ["main"]
