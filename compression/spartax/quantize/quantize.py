"""`quantize`: a grid, a calibration and a rounding joined into one transform."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import catalog, checks, tree
from spartax.arrays import Masked, Permuted, Quantized, dense
from spartax.arrays.packed import pack_codes
from spartax.arrays.permuted import outputs_first
from spartax.arrays.verbs import map_arrays
from spartax.kernels.bits import packed_length
from spartax.quantize import calibrations, report
from spartax.quantize.parts import is_quantized, parts
from spartax.quantize.records import Calibration, Grid, Part, Rounding
from spartax.quantize.roundings.nearest import nearest
from spartax.records import Array, Evidence, Info, Layout, Params, Path, Transform

WASTE = 1.02  # at most so many times the bytes of the codes, for an order that kernels read

Floats = dict[Path, tuple[Array, ...]]
Notes = dict[str, Array]
Encode = Callable[[Array, Part], tuple[Quantized, Notes]]


def quantize(grid: Grid, calibration: Calibration | None = None, rounding: Rounding | None = None) -> Transform:
    """Replace the float arrays of each selected weight by integer codes and scales, `Quantized`.

    Works inside what other methods made: a `Masked` weight becomes `Masked(Quantized)` with scales of its kept entries
    only, a `LowRank` weight has both factors quantized, a `Sum` each term. Codes below 8 bits are packed at once. The
    state keeps the float arrays, so that `update` can calibrate and round anew, for instance under a new mask.

    Args:
      grid: which numbers and which blocks, such as `quantize.integer(bits=4, group=64)`.
      calibration: which scale a block gets; when left out `quantize.absmax()`, `quantize.least_squares()` for `binary`
        and `ternary`.
      rounding: which code an entry gets; `quantize.nearest()` when left out.

    Raises:
      ValueError: a calibration or rounding that does not apply to the grid; at use, a group that does not divide the
        input axis of a weight, a weight that is not finite, or one quantized already.

    Example:
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> from spartax import quantize
      >>> apply = lambda params, x: x @ params["kernel"]
      >>> params = {"kernel": jnp.array([[7.0, 0.5], [-3.2, 3.5]])}
      >>> out = sx.compress(apply, params, quantize.quantize(quantize.integer(bits=4)), batches=[jnp.ones((1, 2))])
      >>> sx.dense(out.params)["kernel"].tolist()
      [[7.0, 0.5], [-3.0, 3.5]]
    """
    calibration = calibration or catalog.load(calibrations, grid.calibration)()
    rounding = rounding or nearest()
    for plug in (calibration, rounding):
        if plug.check:
            plug.check(grid)
    needs = calibration.needs | rounding.needs

    def encode(weight: Array, part: Part) -> tuple[Quantized, Notes]:
        wide = weight.astype(jnp.promote_types(weight.dtype, jnp.float32))
        scales = calibration.fit(wide, grid, part)
        given = (wide, scales, grid, part)
        codes, notes = rounding.report(*given) if rounding.report else (rounding.round(*given), {})
        stored = _stored(codes, grid, part.layout)
        return Quantized(stored, scales.scale, scales.zero, weight.dtype.name, grid.levels), notes

    def init(params: Params, evidence: Evidence) -> tuple[Params, Floats]:
        weights = tree.pick(params, evidence.layouts)
        blank = {path: _blank(path, w, grid, evidence.layouts[path]) for path, w in weights.items()}
        floats = {path: tuple(x for x, _ in parts(w, evidence.layouts[path])) for path, w in weights.items()}
        return tree.replace(params, blank), floats

    def update(params: Params, state: Floats, evidence: Evidence) -> tuple[Params, Floats, Info]:
        catalog.require(needs, evidence)
        new, info = {}, {}
        for path, weight in tree.pick(params, state).items():
            inner = [(x, layout) for x, layout in parts(weight, evidence.layouts[path]) if is_quantized(x)]
            alone = len(inner) == 1 and inner[0][0].shape == weight.shape
            own = [Part(path, layout, evidence, index=i, alone=alone) for i, (_, layout) in enumerate(inner)]
            new[path], info[path] = _refill(weight, list(zip(state[path], own)), grid, encode)
        return tree.replace(params, new), state, info

    return Transform(needs, init, update)


def _blank(path: Path, weight: Any, grid: Grid, layout: Layout) -> Any:
    """The weight with codes of zero: the final structure, before anything is computed."""
    try:
        layouts = iter([layout for _, layout in parts(weight, layout)])
        return map_arrays(weight, lambda x: _zeros(x, grid, next(layouts)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _zeros(x: Array, grid: Grid, layout: Layout) -> Quantized:
    like: Any = jax.ShapeDtypeStruct
    shape = grid.scale_shape(x.shape, layout)
    zero = None if grid.zero is None else like(shape, jnp.dtype(grid.zero))
    codes = jax.eval_shape(lambda c: _stored(c, grid, layout), like(x.shape, jnp.int8))
    blank = Quantized(codes, like(shape, jnp.dtype(grid.scale_dtype)), zero, x.dtype.name, grid.levels)
    return jax.tree.map(lambda s: jnp.asarray(np.zeros(s.shape, s.dtype)), blank)  # from NumPy: nothing to compile


@jax.jit(static_argnums=(1, 2))
def _stored(codes: Array, grid: Grid, layout: Layout) -> Any:
    """Outputs first; below 8 bits packed along the inputs, or along the axis that wastes least if that wastes bytes."""
    kept = outputs_first(codes, layout.outputs, layout.inputs)
    if grid.bits == 8:
        return kept
    value = kept.value if isinstance(kept, Permuted) else kept
    wasteful = packed_length(value.shape[-1], grid.bits) * 8 > WASTE * value.shape[-1] * grid.bits
    value = pack_codes(value, grid.bits, grid.low, None if wasteful else -1)
    return Permuted(value, kept.axes) if isinstance(kept, Permuted) else value


def _is_mine(x: Any) -> bool:
    """A quantized array, together with the mask right around it."""
    return is_quantized(x) or (isinstance(x, Masked) and is_quantized(x.weight))


@jax.jit
def _kept(values: Array, mask: Any) -> Array:
    return jnp.where(dense(mask), values, jnp.zeros((), values.dtype))


def _refill(weight: Any, floats: list[tuple[Array, Part]], grid: Grid, encode: Encode) -> tuple[Any, dict[str, Any]]:
    """The weight with every quantized array encoded anew, and what `info` says of all of them together."""
    rest, sums, notes, groups = iter(floats), [], {}, []

    def refill(x: Any) -> Any:
        if not _is_mine(x):
            return x
        values, part = next(rest)
        checks.finite(part.path, values)
        if isinstance(x, Masked):  # what is switched off must not widen the scales
            values, part = _kept(values, x.mask), part._replace(kept=dense(x.mask))
        codes, said = encode(values, part)
        notes.update(said)
        new = Masked(codes, x.mask) if isinstance(x, Masked) else codes
        sums.append(report.measure(new, values, grid))
        groups.append(values.size // codes.scale.size)
        return new

    new = jax.tree.map(refill, weight, is_leaf=_is_mine)
    # where a group need not divide, the one that was taken
    own = {} if grid.group is None else {"group": max(groups)}
    return new, report.entry(sums, grid) | own | {name: float(value) for name, value in notes.items()}
