"""Shared by all tests: eight virtual CPU devices and the folder of real data."""

import importlib.metadata
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Set before JAX starts: sharded tests compare eight devices with one; compiling is most of the time of small tests.
# The last flag makes small programs compile in a third of the time, but a later XLA stops at what it does not know.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib").startswith("0.10.") else "")
)

import jax
import matplotlib as mpl
import pytest

mpl.use("Agg")

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none."""
    if jax.default_backend() == "gpu":
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="session")
def shared_data():
    """Folder with real data sets and pretrained weights; tests that ask for it skip where it is absent."""
    folder = pathlib.Path(os.environ.get("SPARTAX_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; set SPARTAX_DATA")
    return folder
