"""`python -m experiments.run --config=FILE [--config.KEY=VALUE ...] [--quick]`: measure one network, append one line.

The line goes to `results.jsonl` in the folder `--config.out`. A run that is there already is not measured again. Exit
code 0: the line is there; 1: a file could not be read or written, as on a full disk, or an error of the program, named
in the last line, no line is there; 2: a wrong argument or a missing package, named in one line; 75: another process is
measuring this very run; 130: interrupted, no line written. Training is saved every 10,000 images, under `unfinished` in
that folder: after an interruption the same command goes on from there. Remove what you will not go on with.
"""

import argparse
import hashlib
import pathlib
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence

from ml_collections import ConfigDict

from experiments.common import compressing, configs, measuring, networks, results
from experiments.common.configs import Config
from experiments.common.subject import Subject, mesh_of, stages, tuned
from spartax import attacks, measure
from spartax.records import Attack, Params

PROGRAM = "python -m experiments.run"
BUSY = 75
AGAIN = "the same command goes on from the last checkpoint of a training, and starts again where there was none"


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line says; returns the exit code."""
    try:
        return run(parse(arguments))
    except (ValueError, ModuleNotFoundError) as error:
        print(f"{PROGRAM}: {said(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{PROGRAM}: stopped, no line was written; {AGAIN}: {said(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; no line was written; {AGAIN}", file=sys.stderr)
        return 130
    except Exception as error:
        traceback.print_exc()
        print(f"{PROGRAM}: stopped, no line was written: {type(error).__name__}: {said(error)}", file=sys.stderr)
        return 1


def said(error: Exception) -> str:
    """An error in one line: some libraries write a page."""
    if isinstance(error, ModuleNotFoundError):  # inside a function of the config file: loading it did not meet it
        return f"the config needs {error.name!r}, which is not installed: pip install it"
    return " ".join(str(error).split())


def parse(arguments: Sequence[str]) -> Config:
    """Read the command line and the config file.

    Raises:
      ValueError: what is wrong.
    """
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", required=True, metavar="FILE", help="a config file, such as those of a study")
    parser.add_argument(
        "--quick", action="store_true", help="few images, epochs and steps: seconds, to see that it runs"
    )
    given, others = parser.parse_known_args(arguments)
    return configs.load(given.config, configs.parse_changes(others), quick=given.quick)


def run(config: Config) -> int:
    """Measure one network unless that is done or being done; gives the exit code."""
    folder = pathlib.Path(config.values.out)
    results.usable(folder)
    what = f"{config.label}, seed {config.values.seed}"
    with results.locked(folder, config.identity) as free:
        if not free:
            print(f"{what}: another process is measuring it")
            return BUSY
        if config.identity in results.finished(folder):
            print(f"{what}: already in {folder / results.LINES}")
            return 0
        saved = folder / results.UNFINISHED / hashlib.sha256(config.identity.encode()).hexdigest()[:12]
        record = measured(config, saved)
        results.keep(folder, record)
        shutil.rmtree(saved, ignore_errors=True)
    attacked = "" if record.worst is None else f"worst {record.worst:.1%}  "
    print(f"{what}: {record.bytes_disk:,} bytes  clean {record.clean:.1%}  {attacked}({record.seconds:.1f} s)")
    return 0


def measured(config: Config, saved: pathlib.Path) -> measure.Record:
    """Load, compress, refresh batch statistics, fine-tune, attack, time; `saved` takes the checkpoints of training."""
    start, values = time.perf_counter(), config.values
    mesh = mesh_of(values)
    parent = getattr(config.module, "subject", networks.load)(values)._replace(stages=stages(saved), mesh=mesh)
    replace = getattr(config.module, "network", None)
    subject = parent if replace is None else replace(values, parent)
    attackers = judges(config, subject.eps)  # before hours of work
    params = compressed(config, subject)
    bench = measuring.bench(subject, attackers, values.seed, None if replace is None else parent)
    pgd = {f * subject.eps: attacks.pgd(f * subject.eps, steps=values.pgd_steps) for f in values.curve}
    about = {"method": config.label, "options": config.options, "role": values.role}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "weights"
        found = {"routes": measuring.parent_route(parent, params), "curve": pgd, "timed": values.timed}
        if values.autoattack:
            found["ensemble"] = attacks.autoattack(subject.eps, verbose=False, devices=bench.devices)
        return measuring.record(bench, params, path, about, start=start, **found)


def compressed(config: Config, subject: Subject) -> Params:
    """The weights as they are judged."""
    values, module = config.values, config.module
    if hasattr(module, "compressed"):
        return module.compressed(values, subject)
    if hasattr(module, "training"):
        transform = module.training(values, subject)
        return tuned(subject, subject.variables, values.tune_epochs, values.seed, values.tune_rate, transform)
    transforms = tuple(module.build(values))
    if not transforms:
        return subject.variables
    return compressing.repaired(values, subject, compressing.compressed(values, subject, *transforms))


def judges(config: Config, eps: float) -> dict[str, Attack]:
    """Those of the config file, else the usual ones; none at `eps` 0, where also AutoAttack and curve are left out.

    Raises:
      ValueError: AutoAttack is to follow others, and the config file has none.
    """
    if not eps:
        return {}
    found = getattr(config.module, "judges", usual)(config.values, eps)
    if config.values.autoattack and not found:
        raise ValueError(f"--config.autoattack=True adds AutoAttack to other attacks, and {config.file} runs none")
    return found


def usual(values: ConfigDict, eps: float) -> dict[str, Attack]:
    """FGSM, PGD along gradients, and Square, which needs none."""
    pgd = attacks.pgd(eps, steps=values.pgd_steps, restarts=values.restarts)
    return {
        "FGSM": attacks.fgsm(eps),
        f"PGD-{values.pgd_steps}x{values.restarts}": pgd,
        f"Square-{values.queries}": attacks.square(eps, queries=values.queries),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
