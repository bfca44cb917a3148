import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy as st_numpy

import spartax as sx
from spartax import export
from tests import leaves

pytestmark = pytest.mark.core

ALONE = """
import sys, numpy as np, jax, jax.export, safetensors.numpy
sys.modules["spartax"] = None  # importing it is an error, even where it is installed
run = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
first = [safetensors.numpy.load_file(sys.argv[4])] if len(sys.argv) > 4 else []
np.save(sys.argv[3], run.call(*first, np.load(sys.argv[2])))
"""


def apply(params, x):
    return jax.nn.relu(x @ params["first"]) @ params["last"] + params["bias"]


def network():
    normal = np.random.default_rng(0).standard_normal
    codes = np.random.default_rng(1).integers(-7, 8, (64, 512), np.int8)
    first = sx.Quantized(sx.arrays.packed.pack_codes(jnp.asarray(codes), 4, -8), jnp.full((1, 512), 0.1), None)
    last = sx.Masked(jnp.asarray(normal((512, 10)), jnp.float32), jnp.asarray(normal((512, 10)) > 1))
    return sx.pack({"first": first, "last": last, "bias": jnp.arange(10.0)})


def test_a_program_names_no_source_file_and_lowering_is_as_before(tmp_path):
    lines = jax.config.jax_traceback_in_locations_limit
    done = export.stablehlo(tmp_path / "net", apply, network(), (5, 64))

    def deeper(depth):
        return deeper(depth - 1) if depth else export.stablehlo(tmp_path / "again", apply, network(), (5, 64))

    assert deeper(20) == done
    assert (tmp_path / "again").read_bytes() == (tmp_path / "net").read_bytes()
    assert b".py" not in (tmp_path / "net").read_bytes()
    assert lines == jax.config.jax_traceback_in_locations_limit != 0


@pytest.mark.parametrize("weights", ["inside", "argument"])
def test_a_process_without_the_package_gives_the_same_logits(weights, tmp_path):
    pytest.importorskip("flatbuffers")
    params, x = network(), np.random.default_rng(2).random((5, 64), np.float32)
    done = export.stablehlo(tmp_path / "net", apply, params, (5, 64), weights=weights)
    assert done.bytes == (tmp_path / "net").stat().st_size
    assert (done.batch, done.why) == (None, "")
    stored = sx.nbytes(params)
    assert stored < 25_000  # 131 kB dense for the first layer alone
    if weights == "inside":
        assert stored < done.bytes < stored + 12_000
    else:
        assert done.bytes < 12_000
    np.save(tmp_path / "x.npy", x)
    files = ["net", "x.npy", "out.npy"]
    if weights == "argument":
        export.safetensors(tmp_path / "weights.safetensors", params)
        files.append("weights.safetensors")
    paths = [p for p in sys.path if p and not os.path.exists(os.path.join(p, "spartax"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", ALONE, *files]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), apply(sx.dense(params), x), rtol=1e-4, atol=1e-4)


def test_a_dense_program_takes_any_batch(tmp_path):
    pytest.importorskip("flatbuffers")
    params = sx.dense(network())
    done = export.stablehlo(tmp_path / "net", apply, params, (5, 64))
    assert (done.batch, done.why) == (None, "")
    run = jax.export.deserialize(bytearray((tmp_path / "net").read_bytes()))
    x = np.random.default_rng(2).random((3, 64), np.float32)
    np.testing.assert_allclose(run.call(x), apply(params, x), rtol=1e-4, atol=1e-4)


def test_a_program_that_asks_for_the_batch_is_fixed_and_says_so(tmp_path):
    pytest.importorskip("flatbuffers")
    asks = lambda params, x: x * params["w"] if x.shape[0] > 3 else x  # noqa: E731
    done = export.stablehlo(tmp_path / "net", asks, {"w": jnp.ones(4)}, (2, 4))
    assert done.batch == 2
    assert "Inconclusive" in done.why


@pytest.mark.parametrize(
    ("change", "says"),
    [({"weights": "out"}, "weights"), ({"platforms": ("cpi",)}, "Did you mean 'cpu'"), ({"x_shape": (4,)}, "x_shape")],
)
def test_bad_choices(change, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        export.stablehlo(tmp_path / "net", apply, network(), **{"x_shape": (5, 64), **change})
    assert not list(tmp_path.iterdir())


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert type(left) is type(right)
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


@pytest.mark.parametrize("shape", [leaves.DENSE, leaves.CONV], ids=str)
def test_every_leaf_comes_back_bit_by_bit(shape, tmp_path):
    params = leaves.examples(shape)
    size = export.safetensors(tmp_path / "all", params, {"seed": 3})
    assert size == (tmp_path / "all").stat().st_size
    same(params, export.read_safetensors(tmp_path / "all"))
    assert export.about(tmp_path / "all") == {"seed": 3}
    assert [f.name for f in tmp_path.iterdir()] == ["all"]


def test_every_dtype_comes_back(tmp_path):
    kinds = [np.bool_, np.uint8, np.uint16, np.int16, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
    kinds += [ml_dtypes.int4, ml_dtypes.float8_e4m3b11fnuz, np.complex64, np.float64]
    params = [np.arange(6).reshape(2, 3).T.astype(kind) for kind in kinds]
    params += [jnp.zeros((0, 3), jnp.bfloat16), jnp.float32(2), None]
    export.safetensors(tmp_path / "all", params)
    same(params, export.read_safetensors(tmp_path / "all"))


def test_the_header_is_all_that_is_added(tmp_path):
    params = {"w": jnp.arange(4096, dtype=jnp.float32)}
    size = export.safetensors(tmp_path / "w", params)
    length = int.from_bytes((tmp_path / "w").read_bytes()[:8], "little")
    assert size == 8 + length + 4 * 4096
    assert length < 400
    np.testing.assert_array_equal(st_numpy.load_file(tmp_path / "w")["params/w"], params["w"])


def test_wrong_files_are_named(tmp_path):
    file = tmp_path / "w"
    export.safetensors(file, {"w": jnp.ones(100)})
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="damaged"):
        export.read_safetensors(file)
    st_numpy.save_file({"w": np.ones(3)}, file)
    with pytest.raises(ValueError, match="not written by spartax"):
        export.read_safetensors(file)
    st_numpy.save_file({"w": np.ones(3)}, file, {"spartax": json.dumps({"format": 2})})
    with pytest.raises(ValueError, match="format 2; this version reads format 1"):
        export.read_safetensors(file)
    with pytest.raises(ValueError, match="no file"):
        export.read_safetensors(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("[1]", r"format \[1\]; this version reads format 1"),
        ('{"format":1}', r"must hold \['about', 'format', 'tree'\]; got \['format'\]"),
        ('{"format":1,"about":3,"tree":{}}', "is damaged: its header"),
        ("{", "'spartax' is no JSON"),
        ('{"format":1,"about":{},"tree":{"array":"float32","shape":[3],"at":"v"}}', "holds no array.*'at': 'v'"),
        ('{"format":1,"about":{},"tree":{"array":"float32","shape":[9],"at":"w"}}', "holds no array"),
        ('{"format":1,"about":{},"tree":{"array":"float33","shape":[3],"at":"w"}}', "holds no array"),
    ],
)
def test_a_damaged_header_is_said(header, says, tmp_path):
    st_numpy.save_file({"w": np.ones(3, np.float32)}, tmp_path / "w", {"spartax": header})
    with pytest.raises(ValueError, match=says):
        export.read_safetensors(tmp_path / "w")


@pytest.mark.parametrize("params", [{"a/b": jnp.ones(3), "a": {"b": jnp.zeros(3)}}, {1: jnp.ones(3), "1": jnp.ones(3)}])
def test_arrays_whose_paths_are_spelled_alike_are_refused(params, tmp_path):
    says = r"two arrays with the path 'params/(a/b|1)'"
    with pytest.raises(ValueError, match=says):
        export.safetensors(tmp_path / "w", params)
    with pytest.raises(ValueError, match=says):
        export.stablehlo(tmp_path / "w", lambda params, x: x, params, (2, 3))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), {1, 2}], ids=str)
def test_notes_that_are_no_json_are_refused(value, tmp_path):
    with pytest.raises(ValueError, match="about must hold JSON values only"):
        export.safetensors(tmp_path / "w", {"w": jnp.ones(3)}, {"a": [value]})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_missing_is_made_and_an_error_names_the_file(tmp_path):
    file = tmp_path / "a" / "b" / "w"
    export.safetensors(file, {"w": jnp.ones(3)})
    np.testing.assert_array_equal(export.read_safetensors(file)["w"], np.ones(3))
    with pytest.raises(OSError, match=r"b/w/c could not be written: File exists$"):
        export.safetensors(file / "c", {"w": jnp.ones(3)})
    with pytest.raises(OSError, match=r"a/b could not be written: Is a directory$"):
        export.safetensors(file.parent, {"w": jnp.ones(3)})
    assert sorted(f.name for f in tmp_path.rglob("*")) == ["a", "b", "w"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "w"
    export.safetensors(file, {"w": jnp.ones(4)})
    monkeypatch.setattr(export.checkpoint, "flush", lambda path: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        export.safetensors(file, {"w": jnp.zeros(4)})
    np.testing.assert_array_equal(export.read_safetensors(file)["w"], np.ones(4))
    assert [f.name for f in tmp_path.iterdir()] == ["w"]
