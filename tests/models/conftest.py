import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def data_dir():
    """Folder of the prepared data sets and published weights; tests that need it skip without it."""
    default = pathlib.Path(__file__).parents[3] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("SPARTAX_DATA", default))
    if not (folder / "weights").is_dir():
        pytest.skip(f"no data in {folder}; set SPARTAX_DATA")
    return folder
