"""The steps of an evaluation by AutoAttack: clean pass, one attack after the other on what is left, summary."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks, sharding
from spartax.attacks import journal, survivors, threats
from spartax.attacks.network import network
from spartax.attacks.progress import Bar
from spartax.attacks.result import AutoAttackResult, BrokenBy
from spartax.attacks.resumable import Resumable, Rows
from spartax.attacks.trust import BACKWARDS, DRAWS, FORWARDS, Probe, judge, prober, routes_win, square_wins
from spartax.records import Array

TRUSTED = 64  # examples on which the gradients are checked
SLACK = 1e-6  # what float32 rounding may add to a distance or a pixel


class Tools(NamedTuple):
    """What is compiled once and serves every model of one structure.

    Attributes:
      calls: the attacks in their order.
      forward: `(model, x, words of the keys) -> logits`, jitted.
      probe: `trust.prober`, jitted, with words in the place of the keys.
      place: puts the arrays of a batch on the devices.
      share: the number of devices.
      warnings: what there is to say about the choice of attacks.
    """

    calls: list[survivors.Compiled]
    forward: Callable[..., Array]
    probe: Callable[..., Probe]
    place: Callable[[Any], Any]
    share: int
    warnings: list[str]


class Step(NamedTuple):
    """One attack on one model: the network that is judged, or one of its values and another's"""

    name: str
    call: survivors.Compiled
    model: Any


class Job(NamedTuple):
    """What is evaluated, and how.

    Attributes:
      tools: what is compiled.
      steps: the attacks in their order; the first `len(tools.calls)` follow the network's own
      model: `x -> logits` as a pytree, the network that is judged.
      x, y: images [N, ...] and labels [N], on the host.
      keys: `attack position -> words of the keys`, uint32 [N, 2].
      settings: what the result reports; `eps`, `norm` and `batch_size` are read from it.
      save: `(ledger, rows broken since)`, makes the state durable.
      draws: the model draws, so that a success may not repeat itself.
    """

    tools: Tools
    steps: list[Step]
    model: Any
    x: np.ndarray
    y: np.ndarray
    keys: Callable[[int], np.ndarray]
    settings: dict[str, Any]
    save: Callable[[journal.Ledger, np.ndarray], None]
    draws: bool


def equip(
    attacks: list[Resumable], eps: float, norm: str, every: int, devices: Sequence[jax.Device], warnings: list[str]
) -> Tools:
    """The attacks made ready for some devices; the default device if there are none."""
    place, share = sharding.spreader(devices)
    calls = [survivors.compiled(attack, every, place, share) for attack in attacks]
    probe = prober(eps, norm)
    return Tools(
        calls,
        jax.jit(lambda model, x, words: network(model)(x, survivors.as_keys(words))),
        jax.jit(lambda model, x, y, words: probe(model, x, y, survivors.as_keys(words))),
        place,
        share,
        warnings,
    )


def predict(job: Job, x: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Logits of any number of images, in batches of one size; `words` make up their keys."""
    size, parts = survivors.fitting(min(job.settings["batch_size"], len(job.y)), job.tools.share), []
    for first in range(0, len(x), size):
        rows = np.arange(first, min(first + size, len(x)))
        padded = survivors.padded(rows, size)
        logits = job.tools.forward(job.model, *job.tools.place((x[padded], words[padded])))
        parts.append(np.asarray(logits)[: len(rows)])
    return np.concatenate(parts)


def clean_pass(job: Job) -> journal.Ledger:
    """The ledger before the first attack.

    Raises:
      ValueError: logits that are not finite.
    """
    begin = time.perf_counter()
    logits = predict(job, job.x, job.keys(len(job.steps)))
    checks.finite("logits_fn(x)", jnp.asarray(logits))
    ledger = journal.fresh(job.x, job.y, logits)
    ledger.seconds["clean"], ledger.passes["clean"] = time.perf_counter() - begin, [len(job.y), 0]
    return ledger


def check_trust(job: Job, ledger: journal.Ledger, *, drawn: bool) -> None:
    """Enter whether the gradients can be trusted, on a few images, those classified correctly first."""
    begin = time.perf_counter()
    rows = np.argsort(~ledger.robust, kind="stable")[:TRUSTED]
    runs = [predict(job, job.x[rows], job.keys(len(job.steps) + draw)[rows]) for draw in range(DRAWS)]
    padded = survivors.padded(rows, survivors.fitting(len(rows), job.tools.share))
    given = (job.x[padded], job.y[padded], job.keys(len(job.steps))[padded])
    probe = job.tools.probe(job.model, *job.tools.place(given))
    real = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(rows)], probe)
    ledger.trust = judge(np.stack(runs), real, drawn=drawn)
    ledger.warnings += ledger.trust.warnings
    ledger.passes["trust"] = [len(rows) * FORWARDS, len(rows) * BACKWARDS]
    ledger.seconds["trust"] = time.perf_counter() - begin


def run_attack(job: Job, ledger: journal.Ledger, bar: Bar) -> None:
    """The next attack, on what is still robust; the ledger is changed in place and saved after every batch."""
    (name, call, model), keys = job.steps[ledger.attack], job.keys(ledger.attack)
    attack = call.attack
    parts = survivors.batches(ledger.attacked(), job.settings["batch_size"])
    size = survivors.fitting(max(map(len, parts), default=1), job.tools.share)
    passes = ledger.passes.setdefault(name, [0, 0])

    def tick(rows: int, iterations: int) -> None:
        passes[0] += rows * iterations * attack.forwards
        passes[1] += rows * iterations * attack.backwards
        bar.work(rows * iterations * weight(attack))

    for number in range(ledger.batch, len(parts)):
        bar.show(name, ledger.robust.mean(), work_left(job, ledger, sum(map(len, parts[number:]))))
        begin, rows = time.perf_counter(), parts[number]
        parts_of: tuple[Any, ...] = (job.x, job.y, keys, ledger.logits)
        given = Rows(*(part[rows] for part in parts_of))
        broken = survivors.attack_batch(call, model, given, size, len(parts) - number, tick)
        if broken is not None:
            note(job, ledger, rows, broken, keys)
        ledger.batch = number + 1
        ledger.seconds[name] = ledger.seconds.get(name, 0.0) + time.perf_counter() - begin
        job.save(ledger, rows[~ledger.robust[rows]])
    ledger.accuracy_after[name] = float(ledger.robust.mean())
    ledger.attack, ledger.batch = ledger.attack + 1, 0
    job.save(ledger, np.zeros(0, int))
    seconds = ledger.seconds.get(name, 0.0)
    bar.say(f"{name:>8}: robust {100 * ledger.robust.mean():.2f} % ({seconds:.1f} s)")


def note(job: Job, ledger: journal.Ledger, rows: np.ndarray, broken: survivors.Broken, keys: np.ndarray) -> None:
    """Enter the broken examples of a batch, each after a look at its image: misclassified, in the ball, in the box."""
    (name, call, _), where = job.steps[ledger.attack], rows[broken.rows]
    wrong = np.argmax(predict(job, broken.images, keys[where]), axis=1) != job.y[where]
    inside = allowed(job, broken.images, job.x[where])
    for count, said in (
        (np.sum(~inside), "outside the ball or the box; they do not count"),
        (0 if job.draws else np.sum(inside & ~wrong), "classified correctly when looked at again; they do not count"),
    ):
        if count:
            ledger.warnings.append(f"{name} returned {count} images that are {said}.")
    sure = wrong & inside
    where = where[sure]
    ledger.robust[where], ledger.broken_by[where] = False, ledger.attack
    ledger.rank[where] = [call.attack.rank(int(run)) for run in broken.run[sure]]
    ledger.iteration[where], ledger.x_adv[where] = broken.iteration[sure], broken.images[sure]


def allowed(job: Job, images: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Whether each image lies in the ball around `x` and in the box, bool [B]."""
    length = distances(images, x, job.settings["norm"])
    flat = images.reshape(len(images), -1)
    in_box = (flat.min(1) >= -SLACK) & (flat.max(1) <= 1 + SLACK)
    return in_box & (length <= job.settings["eps"] * (1 + 1e-5) + SLACK)


def distances(images: np.ndarray, x: np.ndarray, norm: str) -> np.ndarray:
    """`|images - x|_p` of every example, [B]."""
    return np.asarray(threats.lengths(jnp.asarray(images - x), norm))


def weight(attack: Resumable) -> int:
    """Work of one iteration on one example; a backward pass counts twice."""
    return attack.forwards + 2 * attack.backwards


def work_left(job: Job, ledger: journal.Ledger, rows: int) -> float:
    """Work of `rows` examples in the attack under way and of all robust ones in those to come."""
    classes = ledger.logits.shape[1]
    later = [step.call.attack for step in job.steps[ledger.attack :]]
    counts = [rows] + [int(ledger.robust.sum())] * (len(later) - 1)
    return float(sum(n * weight(a) * a.steps * a.runs(classes) for n, a in zip(counts, later)))


def summarize(job: Job, ledger: journal.Ledger) -> AutoAttackResult:
    """The result."""
    names = np.array([*(step.name for step in job.steps), "clean", ""])
    after = dict(ledger.accuracy_after)
    broken_by = BrokenBy(names[ledger.broken_by], ledger.rank, ledger.iteration)
    return AutoAttackResult(
        x_adv=ledger.x_adv,
        robust=ledger.robust,
        broken_by=broken_by,
        distance=distances(ledger.x_adv, job.x, job.settings["norm"]),
        clean_accuracy=float(np.mean(ledger.broken_by != -2)),
        robust_accuracy=float(ledger.robust.mean()),
        accuracy_after=after,
        settings=job.settings,
        warnings=(*ledger.warnings, *square_wins(after), *routes_win(after, len(job.tools.calls))),
        passes={name: (forward, backward) for name, (forward, backward) in ledger.passes.items()},
        seconds=dict(ledger.seconds),
        trust=ledger.trust,
    )
