import threading
import types

import jax
import jax.numpy as jnp
import pytest

import spartax as sx
from spartax.kernels import paths

pytestmark = pytest.mark.core

FACTOR = {"auto": 1.0, "reference": 2.0, "xla": 3.0, "pallas": 4.0}


def scaled(w, x):
    return x @ w * FACTOR[paths.asked()]


def test_an_override_takes_part_in_every_jit_cache():
    """Functions traced before, inside or under another jit never answer with the trace of another override."""
    traced = []

    def counted(w, x):
        traced.append(paths.asked())
        return scaled(w, x)

    apply = sx.compressed(counted)
    outer = jax.jit(lambda w, x: apply(w, x) + 1)
    w, x = sx.LowRank(jnp.ones((2, 1)), jnp.ones((1, 3))), jnp.ones((1, 2))
    for path in ("auto", "xla", "pallas", "xla", "reference", "auto"):
        with sx.kernels(path):
            assert apply(w, x)[0, 0] == 2 * FACTOR[path]
            assert outer(w, x)[0, 0] == 2 * FACTOR[path] + 1
    assert apply(w, x)[0, 0] == 2
    assert sorted(traced) == ["auto", "pallas", "reference", "xla"]  # and each is traced once


def test_blocks_nest_and_end_with_an_error():
    with sx.kernels("xla"):
        with pytest.raises(RuntimeError), sx.kernels("pallas"):
            raise RuntimeError
        assert paths.asked() == "xla"
    assert paths.asked() == "auto"


def test_other_threads_are_not_touched():
    seen = []
    with sx.kernels("xla"):
        thread = threading.Thread(target=lambda: seen.append(paths.asked()))
        thread.start()
        thread.join()
    assert seen == ["auto"]


def test_unknown_path_is_named():
    with (
        pytest.raises(ValueError, match=r"path must be one of 'auto'.*got 'palas'. Did you mean 'pallas'"),
        sx.kernels("palas"),
    ):
        pass


def test_choice():
    default = lambda platform: paths.Choice(None, f"slow on {platform}")  # noqa: E731
    fits, ragged = lambda path: None, lambda path: "17 rows"
    assert paths.choose(default, fits) == (None, f"slow on {jax.default_backend()}")
    with sx.kernels("reference"):
        assert paths.choose(default, ragged).path == "reference"
    with sx.kernels("pallas"):
        assert paths.choose(default, ragged) == ("xla", "pallas asked for, but 17 rows")
        if jax.default_backend() == "cpu":
            assert paths.choose(default, fits) == ("tpu", "pallas asked for, interpreted")
            assert paths.interpreted("gpu")
            assert "Hopper" in paths.missing_hopper()


def test_wgmma_is_on_hopper_only(monkeypatch):
    for capability, runs in (("9.0", True), ("10.0", False), ("8.9", False)):
        device = types.SimpleNamespace(compute_capability=capability)
        monkeypatch.setattr(jax, "devices", lambda device=device: [device])
        assert (paths.missing_hopper() is None) == runs
    assert "wgmma" in paths.missing_hopper()


def test_the_package_of_kernels_stays_importable():
    from spartax.kernels import bits  # the attribute `spartax.kernels` is the function

    assert bits.packed_length(3, 4) == 2
    assert sx.kernels is paths.kernels
