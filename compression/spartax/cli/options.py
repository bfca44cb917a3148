"""The options of the command line."""

import argparse
import fractions
import pathlib
from collections.abc import Iterable
from typing import NoReturn

EXAMPLES = {
    "inspect": """\
  spartax inspect small
  spartax inspect net --apply mynet:apply --shape 1,32,32,3
""",
    "compress": """\
  spartax compress net.safetensors small --prune magnitude --sparsity 0.5 --quantize integer --bits 8
  spartax compress net.safetensors small --prune wanda --data cifar10 --data-dir DIR --examples 512
  spartax compress net.safetensors small --prune magnitude --pattern channels --sparsity 0.3
  spartax compress net small.safetensors --apply mynet:apply --shape 1,32,32,3 --quantize integer --bits 4 --group 64
  spartax compress net.safetensors small --quantize integer --bits 4 --calibration mse --rounding gptq --data cifar10
""",
    "attack": """\
  spartax attack small --parent net.safetensors --data cifar10 --data-dir DIR --eps 8/255 --out results/small.jsonl
  spartax attack small.safetensors --apply mynet:apply --eps 0.1 --parent net
""",
    "report": """\
  spartax report results
""",
}
NOTES = """
CKPT is a folder of sx.save, a file of spartax.export.safetensors, or PyTorch weights (.safetensors) of a known
architecture. Such a one needs no --apply, nor does what `compress` makes of it. --data of `compress` gives methods that
look at data the first --examples training images, and batch statistics where the architecture is known. Exit code 0;
2: a wrong input, in one line; 130: interrupted.
"""
PYTHON_ALONE = """
Each method has the options of its Python function at their defaults: n_of_m keeps 2 of 4, block is 32 x 32. Only Python
reaches what needs more: --prune mad, --allocation given and by_latency, --calibration hqq, and methods that are no
criterion, such as swap, precrop and shrink.
"""


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Print and leave with exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Commands `inspect`, `compress`, `attack` and `report`."""
    top = _Parser(
        prog="spartax",
        description="Compress a saved network and measure what is left.",
        epilog=_epilog(EXAMPLES, NOTES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="inspect|compress|attack|report")
    inspect = commands.add_parser("inspect", help="what each weight is stored as, and which kernel it hits")
    compress = commands.add_parser("compress", help="prune, factorize, quantize, in this order; write OUT")
    attack = commands.add_parser("attack", help="AutoAttack; prints one JSON line")
    report = commands.add_parser("report", help="report.md, report.html and pictures from the lines in FOLDER")
    for name, command in commands.choices.items():
        command.epilog = _epilog([name], PYTHON_ALONE if command is compress else "")
        command.formatter_class = argparse.RawDescriptionHelpFormatter
    for command in (inspect, compress, attack):
        command.add_argument("checkpoint", type=pathlib.Path, metavar="CKPT")
        command.add_argument("--apply", metavar="module:function", help="function (params, x) -> logits")
        command.add_argument("--shape", type=_shape, help="of its input, batch first: 1,32,32,3")
    _compress(compress)
    _data(compress, "for methods that look at data, and for batch statistics", None)
    _attack(attack)
    _data(attack, "images to attack", "digits")
    report.add_argument("folder", type=pathlib.Path, metavar="FOLDER")
    report.add_argument("--title", default="Robust compression")
    return top


def _epilog(commands: Iterable[str], notes: str) -> str:
    return "examples:\n" + "".join(EXAMPLES[name] for name in commands) + notes


def _compress(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("out", type=pathlib.Path, metavar="OUT", help="a folder, or one file if it ends in .safetensors")
    add("--prune", metavar="CRITERION", help="magnitude, random, wanda, ...")
    add("--sparsity", type=float, help="removed fraction (default: 0.9, or what the pattern fixes)")
    add("--allocation", help="pooled, uniform, ... (default: pooled, or uniform if the pattern fixes the sparsity)")
    add("--pattern", help="unstructured, n_of_m, channels, block, ... (default: unstructured)")
    add("--factorize", metavar="FACTORIZATION", help="svd, whitened, tucker, ...")
    ranks = command.add_mutually_exclusive_group()
    ranks.add_argument("--energy", type=float, metavar="FRACTION", help="of the squared singular values that is kept")
    ranks.add_argument("--bytes", type=float, metavar="FRACTION", help="of the dense bytes that may be spent")
    add("--quantize", metavar="GRID", help="integer, nf4, ternary, ...")
    add("--bits", type=int)
    add("--group", type=int, help="entries that share a scale")
    add("--calibration", help="of scales: absmax, mse, least_squares, ... (default: that of the grid)")
    add("--rounding", help="nearest, gptq, adaround, ... (default: nearest)")
    add("--seed", type=int, default=0, help="of methods that draw")


def _attack(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--eps", type=_eps, required=True, help="radius in the pixel range [0, 1], as 0.1 or 8/255")
    add("--norm", default="linf", choices=("linf", "l2", "l1"))
    add(
        "--parent",
        type=pathlib.Path,
        metavar="CKPT",
        help="the dense network it was made of: its gradients are used too, and its architecture where CKPT has none",
    )
    add("--version", default="standard", choices=("standard", "plus", "rand"))
    add("--seed", type=int, default=0)
    add("--out", type=pathlib.Path, metavar="FILE", help="file to which the line is added, for report")


def _data(command: argparse.ArgumentParser, why: str, default: str | None) -> None:
    command.add_argument("--data", metavar="NAME", default=default, help=f"digits, cifar10, mnist, ...: {why}")
    command.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="folder of prepared TFDS sets")
    command.add_argument("--examples", type=_positive, default=256, metavar="N", help="default: 256")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive integer; got {text!r}")
    return int(text)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _eps(text: str) -> float:
    try:
        value = float(fractions.Fraction(text))
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if value <= 0.0:
        raise argparse.ArgumentTypeError(f"must be a positive number or fraction; got {text!r}")
    return value
