import functools
import json
import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from flax.core import FrozenDict

from spartax import checkpoint
from spartax.arrays import Bitmask, LowRank, Masked, Quantized, Scored, Sum, is_leaf, nbytes, pack
from spartax.arrays.packed import pack_codes
from tests import leaves

pytestmark = pytest.mark.core


def normal(shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def codes(shape, bits, seed=0):
    limit = 2 ** (bits - 1)
    return jnp.asarray(np.random.default_rng(seed).integers(-limit, limit, shape), jnp.int8)


def int4(shape, groups=4, seed=0):
    return Quantized(pack_codes(codes(shape, 4, seed), 4, -8), normal((groups, *shape[1:]), seed), None, "float32")


def sparse(shape, sparsity=0.9, seed=0):
    return Masked(normal(shape, seed), jnp.asarray(np.random.default_rng(seed + 1).random(shape) >= sparsity))


@functools.cache
def trees():
    """One tree for every leaf class, alone, nested and packed."""
    q8 = Quantized(codes((12, 8), 8), normal((1, 8)), codes((1, 8), 8, 1).astype(jnp.float32), "bfloat16")
    low_rank = LowRank(normal((3, 3, 8, 2)), normal((2, 16), 1))
    both = Masked(int4((16, 8)), jnp.asarray(np.random.default_rng(2).random((16, 8)) > 0.5))
    return {
        "masked": sparse((9, 7)),
        "bitmask": pack(sparse((9, 7))),
        "scored": Scored(normal((9, 7)), normal((9, 7), 1), jnp.int32(20), False),
        "empty": pack(Masked(normal((4, 4)), jnp.zeros((4, 4), bool))),
        "packed": pack_codes(codes((5, 7), 3), 3, -4),
        "int8_asymmetric": q8,
        "int4": int4((16, 8)),
        "sparse_int4": both,
        "sparse_int4_packed": pack(both),
        "block_sparse": leaves.blocks((12, 10)),
        "block_sparse_of_int8": leaves.of_quantized(leaves.blocks((3, 3, 4, 6))),
        "nm_sparse": leaves.groups((12, 10)),
        "nm_sparse_of_int8": leaves.of_quantized(leaves.groups((3, 3, 4, 6), 2)),
        "low_rank": low_rank,
        "low_rank_of_int4": LowRank(int4((16, 4)), int4((4, 8))),
        "sum": Sum((int4((16, 8)), LowRank(normal((16, 2)), normal((2, 8))))),
        "stacked": LowRank(normal((3, 16, 2), dtype=jnp.bfloat16), normal((3, 2, 8), dtype=jnp.bfloat16)),
    }


def assert_same(a, b):
    """Same containers, classes, static fields, dtypes and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert isinstance(x, jax.Array) == isinstance(y, jax.Array)
        if hasattr(x, "dtype"):
            assert x.dtype == y.dtype
            assert x.shape == y.shape
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
        else:
            assert type(x) is type(y)
            assert x == y


def test_every_leaf_round_trips_bit_exactly(tmp_path):
    params = trees()
    checkpoint.save(tmp_path / "c", params)
    restored = checkpoint.restore(tmp_path / "c")
    assert_same(params, restored)
    assert {k: type(v) for k, v in params.items()} == {k: type(v) for k, v in restored.items()}
    assert isinstance(restored["sum"].terms, tuple)
    assert isinstance(restored["bitmask"], Bitmask)
    assert restored["int8_asymmetric"].kind == "bfloat16"


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "bfloat16", "int8", "uint16", "int32", "bool", "int4", "uint4", "float8_e4m3fn"]
)
def test_dtypes_round_trip(tmp_path, dtype):
    values = np.arange(24).reshape(4, 6) % 7
    params = {"device": jnp.asarray(values, dtype), "host": values.astype(jnp.dtype(dtype))}
    checkpoint.save(tmp_path / "c", params)
    assert_same(params, checkpoint.restore(tmp_path / "c"))


def test_containers_scalars_and_odd_arrays_round_trip(tmp_path):
    params = {
        "list": [jnp.ones(3), (jnp.zeros((2, 2)), None)],
        "numbered": {0: np.full((2, 1), 2.5), 7: 1},
        "plain": (1, 2.5, True, "relu", None),
        "empty": {"dict": {}, "list": [], "tuple": (), "array": jnp.zeros((0, 3)), "scalar": jnp.float32(3)},
        "nan": jnp.array([np.nan, -0.0, np.inf]),
        "large": normal((200, 100)),  # stored by itself
        "large_host": np.arange(10_000.0),  # float64 survives without x64
    }
    checkpoint.save(tmp_path / "c", params)
    restored = checkpoint.restore(tmp_path / "c")
    assert_same(params, restored)
    assert list(restored) == list(params)
    assert restored["large_host"].dtype == np.float64


def test_frozen_dicts_and_nnx_states_come_back_as_dicts(tmp_path):
    variables = linen.Dense(3).init(jax.random.key(0), jnp.ones((1, 2)))
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
    checkpoint.save(tmp_path / "c", {"linen": FrozenDict(variables), "nnx": state})
    restored = checkpoint.restore(tmp_path / "c")
    assert_same(restored["linen"], dict(variables))
    assert set(restored["nnx"]) == {"bias", "kernel"}
    np.testing.assert_array_equal(restored["nnx"]["kernel"], state["kernel"][...])


def random_network(shapes, compress):
    return {f"layer{i}": {"kernel": compress(s, i), "bias": normal((s[-1],))} for i, s in enumerate(shapes)}


@pytest.mark.parametrize(
    "compress",
    [
        lambda s, i: int4(s, s[0] // 32, i),
        lambda s, i: pack(sparse(s, 0.9, i)),
        lambda s, i: LowRank(normal((s[0], 16), i), normal((16, s[1]), i + 1)),
        lambda s, i: Sum((int4(s, s[0] // 32, i), LowRank(normal((s[0], 4), i), normal((4, s[1]), i)))),
    ],
    ids=["int4", "sparse", "low rank", "sum"],
)
def test_size_on_disk_is_within_three_percent_of_nbytes(tmp_path, compress):
    params = random_network([(512, 1024), (1024, 1024), (256, 512)], compress)
    checkpoint.save(tmp_path / "c", params)
    size = checkpoint.size_on_disk(tmp_path / "c")
    assert size <= 1.03 * nbytes(params) + 2**16
    assert size >= 0.8 * nbytes(params)  # nothing was lost: codes and noise hardly compress


def test_many_small_layers_need_few_files_and_little_metadata(tmp_path):
    leaf = int4((32, 32), 1)
    params = random_network([(32, 32)] * 100, lambda s, i: leaf)
    checkpoint.save(tmp_path / "c", params)
    assert checkpoint.size_on_disk(tmp_path / "c") <= 1.03 * nbytes(params) + 2**16
    assert len([f for f in (tmp_path / "c").rglob("*") if f.is_file()]) < 30


def test_extra_is_kept(tmp_path):
    checkpoint.save(tmp_path / "c", {"w": jnp.ones(2)}, extra={"step": 3, "notes": ["a", None]})
    assert checkpoint.extra(tmp_path / "c") == {"step": 3, "notes": ["a", None]}
    with pytest.raises(ValueError, match="extra must hold JSON values"):
        checkpoint.save(tmp_path / "d", {}, extra={"x": jnp.ones(2)})


def test_saving_again_replaces_and_leaves_one_set_of_arrays(tmp_path):
    for value in (1.0, 2.0, 3.0):
        checkpoint.save(tmp_path / "c", {"w": jnp.full((3,), value)})
    np.testing.assert_array_equal(checkpoint.restore(tmp_path / "c")["w"], [3.0] * 3)
    assert len(list((tmp_path / "c").iterdir())) == 2


@pytest.mark.parametrize("step", ["_write_arrays", "os.replace", "flush"])
def test_a_save_that_fails_leaves_the_previous_checkpoint(tmp_path, monkeypatch, step):
    checkpoint.save(tmp_path / "c", {"w": jnp.ones(3)})

    def fail(*unused):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"spartax.checkpoint.{step}", fail)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path / "c", {"w": jnp.zeros(3), "new": jnp.ones(1)})
    assert_same(checkpoint.restore(tmp_path / "c"), {"w": jnp.ones(3)})
    checkpoint.save(tmp_path / "c", {"w": jnp.zeros(3)})
    assert_same(checkpoint.restore(tmp_path / "c"), {"w": jnp.zeros(3)})
    assert len(list((tmp_path / "c").iterdir())) == 2


@pytest.mark.parametrize("step", ["os.replace", "flush"])
def test_a_full_disk_leaves_nothing_of_a_save_that_fails(tmp_path, monkeypatch, step):
    checkpoint.save(tmp_path / "c", {"w": jnp.ones(3)})
    before = sorted(tmp_path.rglob("*"))

    def fail(*unused):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"spartax.checkpoint.{step}", fail)
    with pytest.raises(OSError, match=r"c could not be written, what it held before is unchanged: .*No space left"):
        checkpoint.save(tmp_path / "c", {"w": jnp.zeros(3)})
    assert sorted(tmp_path.rglob("*")) == before
    assert_same(checkpoint.restore(tmp_path / "c"), {"w": jnp.ones(3)})


def test_a_process_killed_while_saving_leaves_the_previous_checkpoint(tmp_path):
    checkpoint.save(tmp_path / "c", {"w": jnp.ones(3)})
    code = f"""
        import os, signal
        import jax.numpy as jnp
        from spartax import checkpoint
        flush = checkpoint.flush
        def die(path):
            flush(path)
            if path.name == "spec.json.tmp":
                os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.flush = die
        checkpoint.save({str(tmp_path / "c")!r}, {{"w": jnp.zeros((200, 200))}})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "c").glob("arrays-*"))) == 2  # it was killed after its arrays were written
    assert_same(checkpoint.restore(tmp_path / "c"), {"w": jnp.ones(3)})


def edit(folder, change):
    file = folder / "spec.json"
    spec = json.loads(file.read_text())
    change(spec)
    file.write_text(json.dumps(spec))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(format=2), "checkpoint format 2; this version reads format 1"),
        (lambda s: s.update(author="x"), "unknown or missing fields: .'author'."),
        (lambda s: s.pop("extra"), "unknown or missing fields: .'extra'."),
        (lambda s: s["tree"].update(comment=1), "node with unknown fields"),
        (lambda s: s["tree"]["dict"][0][1].update(leaf="Wavelet"), "holds a Wavelet; known leaves are .*Masked"),
        (lambda s: s["tree"]["dict"][0][1]["fields"].update(bias=1), "Masked has fields .*bias.*; here"),
        (lambda s: s["tree"]["dict"][0][1]["fields"].pop("mask"), "Masked has fields .'weight'.; here"),
        (lambda s: s["tree"]["dict"][0][1]["fields"]["mask"].update(units=1), "node with unknown fields"),
    ],
)
def test_restore_refuses_what_it_does_not_know(tmp_path, change, message):
    checkpoint.save(tmp_path / "c", {"w": sparse((4, 4))})
    edit(tmp_path / "c", change)
    with pytest.raises(ValueError, match=message):
        checkpoint.restore(tmp_path / "c")


def test_restore_refuses_folders_without_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        checkpoint.restore(tmp_path)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "spec.json").write_text('{"format": 1, "arr')
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.restore(tmp_path / "c")


def test_save_refuses_what_it_could_not_restore(tmp_path):
    from typing import NamedTuple

    class State(NamedTuple):
        count: int

    with pytest.raises(ValueError, match="params/opt is a State, which cannot be restored"):
        checkpoint.save(tmp_path / "c", {"opt": State(1)})
    with pytest.raises(ValueError, match=r"jax\.random\.key_data"):
        checkpoint.save(tmp_path / "c", {"key": jax.random.key(0)})
    with pytest.raises(ValueError, match="cannot run under jit"):
        jax.jit(lambda x: checkpoint.save(tmp_path / "c", {"w": x}))(jnp.ones(2))
    assert not (tmp_path / "c").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not a checkpoint; choose another folder"):
        checkpoint.save(tmp_path, {"w": jnp.ones(2)})
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_restored_leaves_run_under_jit(tmp_path):
    params = trees()
    checkpoint.save(tmp_path / "c", params)
    restored = checkpoint.restore(tmp_path / "c")
    from spartax.arrays import dense

    for name, leaf in restored.items():
        assert is_leaf(leaf)
        np.testing.assert_array_equal(jax.jit(dense)(leaf), jax.jit(dense)(params[name]))
