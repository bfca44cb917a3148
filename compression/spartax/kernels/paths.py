"""Which implementation of a kernel runs: the one asked for, or one chosen by platform while the program is traced.

Every kernel has the paths `reference` (plain, obvious), `xla` (fast on CPU, runs everywhere), and two in Pallas: `tpu`
(Mosaic) and `gpu` (Mosaic GPU, Hopper). A kernel says which path it takes by default on each platform and
why, and for which shapes its Pallas paths do not fit; `choose` puts that together with what the user asks for.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from spartax import checks

ASKED = ("auto", "reference", "xla", "pallas")

_asked = jax.make_user_context("auto")  # a part of the key of every jit cache, so that no trace outlives its override


class Choice(NamedTuple):
    """The path that a use of a kernel takes.

    Attributes:
      path: "reference", "xla", "tpu" or "gpu"; None where the weight is better made dense.
      why: one phrase for people.
    """

    path: str | None
    why: str


@contextlib.contextmanager
def kernels(path: str) -> Iterator[None]:
    """Every kernel traced inside the `with` block takes this path; functions jitted before are traced anew.

    Args:
      path: "auto" chooses by platform and shape what was measured to be fast (the default outside any block);
        "reference" is plain and slow; "xla" runs everywhere; "pallas" is the hand-written kernel of this platform,
        interpreted on CPU, where its shapes fit, else "xla". `explain` says which path a use takes and why.

    Raises:
      ValueError: another value.
    """
    checks.one_of("path", path, ASKED)
    with _asked(path):
        yield


def asked() -> str:
    """The path asked for at this place, "auto" if none is."""
    return _asked.value


def platform() -> str:
    """ "cpu", "tpu", or "gpu" of the default backend."""
    return jax.default_backend()


def choose(default: Callable[[str], Choice], misfit: Callable[[str], str | None]) -> Choice:
    """The path of one use.

    Args:
      default: platform -> the choice when nothing is asked for.
      misfit: "tpu" or "gpu" -> why that Pallas kernel cannot take these shapes and dtypes, or None.
    """
    wish = asked()
    if wish == "auto":
        return default(platform())
    if wish != "pallas":
        return Choice(wish, "asked for")
    path = "gpu" if platform() == "gpu" else "tpu"
    problem = misfit(path) or (missing_hopper() if path == "gpu" else None)
    if problem:
        return Choice("xla", f"pallas asked for, but {problem}")
    return Choice(path, "pallas asked for, interpreted" if interpreted(path) else "pallas asked for")


def interpreted(path: str) -> bool:
    """Whether the Pallas kernel `path` must be interpreted because this platform cannot run it."""
    return path in ("tpu", "gpu") and platform() != path


def missing_hopper() -> str | None:
    """Why Mosaic GPU kernels cannot run on the first device, or None if they can."""
    capability = str(getattr(jax.devices()[0], "compute_capability", "0.0"))
    if capability.split(".")[0] == "9":
        return None
    return (
        "these Mosaic GPU kernels multiply by wgmma, which only compute capability 9 (Hopper) has; "
        f"this device has {capability}"
    )
