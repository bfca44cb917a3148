"""`chain`: several transforms as one."""

import dataclasses
from typing import Any

import jax

from spartax.program.collect import NEEDS
from spartax.records import Evidence, Info, Params, Path, Transform

STALE = frozenset({"originals", "objective", "grads", *NEEDS})  # what no longer fits once channels were rescaled


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ChainState:
    """State of `chain`.

    Attributes:
      states: one for each transform.
      report: what `init` did, handed out by the first `update`; None from then on.
    """

    states: tuple[Any, ...]
    report: Info | None = dataclasses.field(default=None, metadata={"static": True})


def chain(*transforms: Transform) -> Transform:
    """Several transforms as one: each works on what the one before left.

    `init` also runs the first update of each, since a later transform may need what an earlier one did (a correction
    needs the error). The first `update` reports it; those after refresh every transform in turn (in training,
    those that are due), on the weights as they are then.

    Raises:
      ValueError: no transform, something that is none, one that rescales channels (`quantize.smooth()`) in front of
        one whose evidence was gathered before that.
    """
    for transform in transforms:
        if not isinstance(transform, Transform):
            raise ValueError(f"transforms must be Transform records (prune.prune(...), ...); got {transform!r}.")
    if not transforms:
        raise ValueError("chain: give at least one transform.")
    if len(transforms) == 1:
        return transforms[0]
    _refuse_stale(transforms)

    def init(params: Params, evidence: Evidence) -> tuple[Params, ChainState]:
        states, infos = [], []
        for transform, own in zip(transforms, _evidences(evidence, len(transforms))):
            params, state = transform.init(params, own)
            params, state, info = _refreshed(transform, params, state, own)
            states.append(state)
            infos.append(info)
        return params, ChainState(tuple(states), _merged(infos))

    def update(params: Params, state: ChainState, evidence: Evidence) -> tuple[Params, ChainState, Info]:
        if state.report is not None:
            return params, ChainState(state.states), state.report
        states, infos = [], []
        for transform, old, own in zip(transforms, state.states, _evidences(evidence, len(transforms))):
            params, new, info = _refreshed(transform, params, old, own)
            states.append(new)
            infos.append(info)
        return params, ChainState(tuple(states)), _merged(infos)

    def due(step: int) -> bool:
        return any(transform.due(step) for transform in transforms)

    def check(params: Params, evidence: Evidence) -> None:
        for transform in transforms:
            if transform.check is not None:
                transform.check(params, evidence)

    return Transform(frozenset().union(*(t.needs for t in transforms)), init, update, check, due)


def _refuse_stale(transforms: tuple[Transform, ...]) -> None:
    rescaled = False
    for transform in transforms:
        stale = ", ".join(sorted(transform.needs & STALE))
        if rescaled and stale:
            raise ValueError(
                f"transforms: one rescales channels, and a later one needs {stale} "
                "of the network after that; call compress twice, the second time with the params of the first."
            )
        rescaled = rescaled or "scalings" in transform.needs


def _refreshed(transform: Transform, params: Params, state: Any, evidence: Evidence) -> tuple[Params, Any, Info]:
    """The update of one transform of a chain; in training, only when it is due."""
    if evidence.step is not None and not transform.due(int(evidence.step)):
        return params, state, {}
    return transform.update(params, state, evidence)


def _evidences(evidence: Evidence, count: int) -> list[Evidence]:
    """The same for each transform but for the key: two that draw must not draw the same numbers."""
    if evidence.key is None:
        return [evidence] * count
    return [evidence._replace(key=jax.random.fold_in(evidence.key, i)) for i in range(count)]


def _merged(infos: list[Info]) -> Info:
    paths = dict.fromkeys(path for info in infos for path in info)
    return {p: {"method": "chain", "steps": [step for info in infos for step in steps_of(info, p)]} for p in paths}


def steps_of(info: Info, path: Path) -> list[dict[str, Any]]:
    """What each transform did to one weight."""
    entry = info.get(path)
    return [] if entry is None else entry.get("steps", [entry])
