"""GPTQ: one layer, and all of ResNet-18, against the same blocks of columns in NumPy."""

import math
import time
import tracemalloc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import spartax as sx
from experiments.bench.row import Row, compare
from spartax import models, quantize
from spartax.quantize.records import Part
from spartax.records import Array, Evidence, Layout

GRID, BLOCK, DAMPING = quantize.integer(4), 128, 0.01
OUTPUTS_FIRST = Layout((1,), (0,))


class Layer(NamedTuple):
    """A weight `[O, I]`, the moments `[I, I]` of its inputs, and the scale `[O, 1]` of every output."""

    weight: Array
    moments: Array
    scale: Array


class Solved(NamedTuple):
    """Codes `[O, I]` and the errors of the outputs, of GPTQ and of the nearest codes."""

    codes: Array
    loss: Array
    nearest_loss: Array


def rows(quick: bool) -> list[Row]:
    side = 48 if quick else 4096
    module = models.CNN((4,), 8) if quick else models.resnet18()
    sizes = {f"{side} x {side}": [(side, side)], f"all layers of {'a CNN' if quick else 'ResNet-18'}": shapes(module)}
    return [compared(name, [draw(seed, *size) for seed, size in enumerate(each)]) for name, each in sizes.items()]


def compared(name: str, layers: list[Layer]) -> Row:
    """Layer after layer, by programs that are compiled before, one for each size."""
    start = time.perf_counter()
    programs = {layer.weight.shape: solve.lower(layer).compile() for layer in layers}
    compiled = time.perf_counter() - start
    run = lambda: [programs[layer.weight.shape](layer) for layer in layers]  # noqa: E731
    tracemalloc.start()
    theirs, peak = [in_numpy(layer) for layer in layers], tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for layer, own, other in zip(layers, run(), theirs):
        check(layer, own, other)
    pair = {"GPTQ and its losses": run, "NumPy": lambda: [in_numpy(layer) for layer in layers]}
    row = compare(name, pair, warmups=1, repeats=2, note="4 bits; NumPy computes no losses")
    memory = max(_bytes(program.memory_analysis()) for program in programs.values())
    largest = max(sum(a.nbytes for a in layer) for layer in layers)
    figures = {"compile s": compiled, "peak MB": memory / 1e6, "NumPy peak MB": (peak + largest) / 1e6}
    return row._replace(figures=figures)


def check(layer: Layer, own: Solved, codes: np.ndarray) -> None:
    """GPTQ loses less than the nearest codes, and as little as in NumPy or less: outputs may keep the nearest."""
    change = codes * np.asarray(layer.scale) - np.asarray(layer.weight)
    assert 0 < own.loss < 0.9 * own.nearest_loss
    assert own.loss < 1.001 * np.sum(change * (change @ np.asarray(layer.moments)))


def _bytes(memory: Any) -> int:
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes


def shapes(module) -> list[tuple[int, int]]:
    """Outputs and inputs of every layer; those of a convolution are its patches."""
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    count = lambda usage, axes: math.prod(usage.shape[a] for a in axes)  # noqa: E731
    usages = sx.inspect(models.eval_apply(module), variables, x).values()
    layouts = [(u, u.layout) for u in usages if u.layout is not None]
    return [(count(u, layout.outputs), count(u, layout.inputs)) for u, layout in layouts]


def draw(seed: int, outputs: int, inputs: int) -> Layer:
    """Normal weights, and inputs of different sizes whose neighbors correlate by 0.95."""
    rng = np.random.default_rng(seed)
    weight, size = rng.normal(size=(outputs, inputs)), np.exp(rng.normal(size=inputs) / 2)
    away = np.abs(np.subtract.outer(np.arange(inputs), np.arange(inputs)))
    weight, moments = (jnp.asarray(a, jnp.float32) for a in (weight, 0.95**away * size[:, None] * size))
    return Layer(weight, moments, quantize.absmax().fit(weight, GRID, _part(moments)).scale)


def _part(moments: Array) -> Part:
    return Part("w", OUTPUTS_FIRST, Evidence({"w": OUTPUTS_FIRST}, moments={"w": moments}))


@jax.jit
def solve(layer: Layer) -> Solved:
    scales = quantize.records.Scales(layer.scale, None)
    codes, notes = quantize.gptq(DAMPING, block=BLOCK).report(layer.weight, scales, GRID, _part(layer.moments))
    return Solved(codes, notes["layer_loss"], notes["nearest_loss"])


def in_numpy(layer: Layer) -> np.ndarray:
    """The codes by the blocked algorithm of the paper, column by column."""
    weight, moments, scale = (np.array(a) for a in layer)
    moments[np.diag_indices_from(moments)] += np.float32(DAMPING) * np.mean(np.diagonal(moments))
    upper = np.linalg.cholesky(np.linalg.inv(moments)).T
    codes = np.empty(weight.shape, np.int8)
    for start in range(0, weight.shape[1], BLOCK):
        end = min(start + BLOCK, weight.shape[1])
        errors = np.empty_like(weight[:, start:end])
        for j in range(start, end):
            codes[:, j] = np.clip(np.round(weight[:, j] / scale[:, 0]), *GRID.codes)
            error = (weight[:, j] - codes[:, j] * scale[:, 0]) / upper[j, j]
            weight[:, j:end] -= error[:, None] * upper[j, j:end]
            errors[:, j - start] = error
        weight[:, end:] -= errors @ upper[start:end, end:]
    return codes
