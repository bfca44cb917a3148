"""AutoAttack: the worst case over an ensemble of attacks, resumable, at the cost of the examples still robust."""

import functools
import pathlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.attacks import evaluation, journal, threats, versions
from spartax.attacks.bpda import bpda
from spartax.attacks.network import Problem, as_pytree, example_keys, is_random, keeps_state, problem
from spartax.attacks.progress import progress
from spartax.attacks.result import AutoAttackResult
from spartax.attacks.resumable import Resumable, whole
from spartax.records import Array, Attack, LogitsFn

Evaluate = Callable[..., AutoAttackResult]  # (key, logits_fn, x, y, *, index=None, routes=None) -> AutoAttackResult


class Choice(NamedTuple):
    """What determines the compiled attacks; hashable for a named version."""

    eps: float
    norm: str
    version: str | tuple[Attack, ...]
    parity: bool
    compact_every: int
    devices: tuple[jax.Device, ...]


class Options(NamedTuple):
    """The settings of an evaluation, checked."""

    choice: Choice
    batch_size: int
    state: pathlib.Path | None
    trust: bool


def autoattack(
    eps: float,
    norm: str = "linf",
    version: str | tuple[Attack, ...] = "standard",
    *,
    batch_size: int = 256,
    parity: bool = False,
    trust: bool = True,
    verbose: bool = True,
    state: str | pathlib.Path | None = None,
    compact_every: int = 10,
    devices: Sequence[jax.Device] = (),
) -> Evaluate:
    """The share of examples that no attack of an ensemble can break.

    Every attack works on what all before it left robust; an example is robust when it is classified correctly and no
    attack found a misclassified image in the ball. See Croce and Hein, "Reliable evaluation of adversarial robustness
    with an ensemble of diverse parameter-free attacks", arXiv 2003.01690.

    The randomness of an example comes from its own key, so results do not depend on batch size, order or devices (up to
    the rounding of the network itself). Broken examples are taken out of the batch while an attack runs.

    Args:
      eps: radius in pixel units of [0, 1].
      norm: `"linf"`, `"l2"` or `"l1"`.
      version: `"standard"`, `"plus"`, `"rand"` (see `versions.members`), or a tuple of attacks.
      batch_size: most examples attacked at once.
      parity: do as the reference implementation does where it differs from the papers: the first comparison of APGD,
        and the windows of Square, which a whole batch then shares.
      trust: check first whether the gradients can be believed (`attacks.trust`), on 64 images.
      verbose: show a progress bar, and a line after each attack.
      state: folder for the state, written atomically after every batch; the same call continues from it.
      compact_every: iterations between two looks at which examples are broken.
      devices: the devices to spread every batch over; the default device if empty.

    Returns:
      `evaluate(key, logits_fn, x, y, *, index=None, routes=None) -> AutoAttackResult`, arguments as in
      `records.Attack`; not to be called under jit. A `logits_fn` that draws takes a second argument `key`. `routes` are
      further networks by name, for a `logits_fn` with rounding inside: what is still robust is attacked again along
      the gradients of each (see `bpda`), as "apgd-ce by NAME", ...; it is `logits_fn` that decides.

    Raises:
      ValueError: an option out of range; at the call, images outside [0, 1], labels or logits that do not fit, logits
        that are not finite, or a state that belongs to another evaluation.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from spartax import attacks
      >>> logits_fn = lambda x: jnp.stack([x[:, 0, 0, 0], x[:, 0, 1, 0]], axis=1)  # 0: the first pixel is brighter
      >>> x = jnp.array([[0.6, 0.5], [0.9, 0.2], [0.4, 0.5]]).reshape(3, 1, 2, 1)
      >>> evaluate = attacks.autoattack(0.1, version=(attacks.apgd(0.1, steps=5),), trust=False, verbose=False)
      >>> result = evaluate(jax.random.key(0), logits_fn, x, jnp.array([0, 0, 0]))
      >>> result.robust.tolist(), result.broken_by.attack.tolist()
      ([False, True, False], ['apgd', '', 'clean'])
      >>> round(result.clean_accuracy, 3), round(result.robust_accuracy, 3)
      (0.667, 0.333)
    """
    threats.threat(norm, eps)  # checks both
    checks.positive_int("batch_size", batch_size)
    checks.positive_int("compact_every", compact_every)
    if isinstance(version, str):
        checks.one_of("version", version, versions.VERSIONS)
    elif not (isinstance(version, tuple) and version and all(callable(attack) for attack in version)):
        raise ValueError(f"version must be a name or a tuple of attacks; got {version!r}.")
    choice = Choice(float(eps), norm, version, parity, compact_every, tuple(devices))
    options = Options(choice, batch_size, None if state is None else pathlib.Path(state), trust)
    shared = (
        functools.partial(named, choice) if isinstance(version, str) else functools.cache(lambda k: equip(choice, k))
    )

    def evaluate(
        key: Array,
        logits_fn: LogitsFn,
        x: Array,
        y: Array,
        *,
        index: Array | None = None,
        routes: Mapping[str, LogitsFn] | None = None,
    ) -> AutoAttackResult:
        if not len(x):
            raise ValueError("x must hold at least one image; got none.")
        given = problem(key, logits_fn, np.asarray(x), np.asarray(y), index)  # whatever mesh they lie on
        models = {"": logits_fn, **(routes or {})}
        # Only a model whose weights are arguments may keep what is compiled: a closure would never leave memory.
        keep = all(isinstance(f, jax.tree_util.Partial) and jax.tree.leaves(f) for f in models.values())
        tools = shared(given.classes) if keep else equip(choice, given.classes)
        job, ledger = prepare(options, tools, given, key, models, index)
        with progress(verbose) as bar:
            while ledger.attack < len(job.steps):
                evaluation.run_attack(job, ledger, bar)
        return evaluation.summarize(job, ledger)

    return evaluate


def equip(choice: Choice, classes: int) -> evaluation.Tools:
    """The compiled attacks for a number of classes."""
    attacks, warnings = ensemble(choice, classes)
    return evaluation.equip(attacks, choice.eps, choice.norm, choice.compact_every, choice.devices, warnings)


named = functools.lru_cache(maxsize=8)(equip)  # calls of a named version share what they compile


def ensemble(choice: Choice, classes: int) -> tuple[list[Resumable], list[str]]:
    """The attacks, each with a name of its own, and what there is to say about them."""
    if isinstance(choice.version, str):
        return versions.members(choice.version, choice.eps, choice.norm, classes, parity=choice.parity)
    attacks, seen = [], Counter()
    for attack in choice.version:
        name = (
            attack.name
            if isinstance(attack, Resumable)
            else getattr(attack, "__qualname__", "attack").split(".<locals>")[0]
        )
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name}-{seen[name]}"
        attacks.append(attack.named(name) if isinstance(attack, Resumable) else whole(attack, name))
    return attacks, []


def sequence(tools: evaluation.Tools, models: Mapping[str, LogitsFn]) -> list[evaluation.Step]:
    """All attacks on the first model, then those that take gradients along those of each other one."""
    judged, *_ = models.values()
    steps = []
    for number, (route, model) in enumerate(models.items()):
        model = as_pytree(judged) if number == 0 else bpda(judged, model)
        calls = [call for call in tools.calls if number == 0 or call.attack.backwards]
        steps += [evaluation.Step(f"{c.attack.name} by {route}" if number else c.attack.name, c, model) for c in calls]
    return steps


def prepare(
    options: Options,
    tools: evaluation.Tools,
    given: Problem,
    key: Array,
    models: Mapping[str, LogitsFn],
    index: Array | None,
) -> tuple[evaluation.Job, journal.Ledger]:
    """The job, and its ledger: the saved one, or a new one after the clean pass and the checks of trust."""
    logits_fn, *_ = models.values()
    x, y = np.asarray(given.x), np.asarray(given.y)
    numbers = np.arange(len(y)) if index is None else np.asarray(index)
    settings = {"batch_size": options.batch_size, **options.choice._asdict()}
    settings |= {"version": options.choice.version if isinstance(options.choice.version, str) else "custom"}
    settings |= {"devices": len(options.choice.devices) or 1, "routes": list(models)[1:]}
    settings |= {"attacks": {call.attack.name: call.attack.settings for call in tools.calls}}
    marks = journal.fingerprint(settings, x=x, y=y, index=numbers, key=np.asarray(jax.random.key_data(key)))
    job = evaluation.Job(
        tools=tools,
        steps=sequence(tools, models),
        model=as_pytree(logits_fn),
        x=x,
        y=y,
        keys=lambda position: key_words(key, position, numbers),
        settings=settings,
        save=lambda ledger, rows: journal.commit(options.state, marks, ledger, rows),
        draws=is_random(logits_fn),
    )
    ledger = journal.load(options.state, marks, x)
    if ledger is not None:
        same_model(job, ledger)
        return job, ledger
    ledger = evaluation.clean_pass(job)
    ledger.warnings += tools.warnings
    drawn = job.draws or options.choice.version == "rand"
    if options.choice.version != "rand" and keeps_state(logits_fn, given.x[:1]):
        ledger.warnings.append("logits_fn keeps hidden state: two calls differ. If it draws, let it take a `key`.")
    if options.trust:
        evaluation.check_trust(job, ledger, drawn=drawn)
    job.save(ledger, np.zeros(0, int))
    return job, ledger


def key_words(key: Array, position: int, index: np.ndarray) -> np.ndarray:
    """The words of one key per example for the attack at a position, uint32 [N, 2]."""
    return np.asarray(jax.random.key_data(example_keys(jax.random.fold_in(key, position), jnp.asarray(index))))


def same_model(job: evaluation.Job, ledger: journal.Ledger) -> None:
    """The saved clean logits must be those of this model."""
    few = slice(0, job.settings["batch_size"])
    logits = evaluation.predict(job, job.x[few], job.keys(len(job.steps))[few])
    if not np.allclose(logits, ledger.logits[few], rtol=1e-3, atol=1e-3 * np.abs(ledger.logits).max()):
        raise ValueError("state belongs to another model: the clean logits differ. Name another folder, or remove it.")
