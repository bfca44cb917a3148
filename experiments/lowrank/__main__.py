"""`python -m experiments.lowrank --data-dir DIR --weights FILE.safetensors --out FOLDER`: see README.md here."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.lowrank.methods import RATIOS, all_methods
from experiments.quickstart import measuring, subject
from experiments.quickstart.options import parse as quickstart_options
from experiments.quickstart.run import DENSE
from spartax import data, measure

CALIBRATION = 1024  # training images


def main(arguments: Sequence[str]) -> int:
    """Measure every method that has no line in the results yet; the table comes from the lines."""
    parser = argparse.ArgumentParser(prog="python -m experiments.lowrank", description=__doc__)
    parser.add_argument("--data-dir", type=pathlib.Path, required=True, help="folder with CIFAR-10 as tfds prepares it")
    parser.add_argument("--weights", type=pathlib.Path, required=True, help="published weights, safetensors")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of results; finished rows are kept")
    parser.add_argument("--examples", type=int, default=500, help="test images (default: 500)")
    parser.add_argument("--quick", action="store_true", help="one budget and 32 images, to see that it runs")
    given = parser.parse_args(arguments)
    examples = 32 if given.quick else given.examples
    command = ["--data", "cifar10", "--data-dir", given.data_dir, "--weights", given.weights, "--examples", examples]
    options = quickstart_options([str(part) for part in command])
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        network = subject.published(options, given.weights)
        train = data.load("cifar10", f"train[:{64 if given.quick else CALIBRATION}]", given.data_dir)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    batches = [train.x[start : start + 256] for start in range(0, len(train.x), 256)]
    given.out.mkdir(parents=True, exist_ok=True)
    lines = given.out / f"{network.name}.jsonl"
    done = {record.method for record in measure.read(lines)} if lines.exists() else set()
    bench = measuring.bench(network, options)
    try:
        for method in (DENSE, *all_methods(batches, RATIOS[:1] if given.quick else RATIOS)):
            if method.name in done:
                continue
            record = measuring.row(bench, method, given.out / "checkpoints" / network.name)
            measure.append(lines, record)
            console.print(f"{record.method:30}{record.bytes_disk:>10,} bytes  {record.clean:6.1%}  {record.worst:6.1%}")
    except KeyboardInterrupt:
        console.print(f"interrupted; the finished rows are in {lines}: the same command goes on from there")
        return 130
    records = measure.read(lines)
    title = f"{network.name}: low rank in one shot, no fine-tuning"
    (given.out / f"{network.name}.md").write_text(measure.markdown(records, title))
    console.print(measure.table(records, title))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
