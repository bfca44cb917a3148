"""What the config files of the recipes share."""

from typing import Any

from ml_collections import ConfigDict

from experiments.common import configs


def base(**values: Any) -> ConfigDict:
    """Accuracy at one radius; latency is the subject of other studies."""
    common = {"tune_epochs": 10, "tune_rate": 2e-3, "timed": False, "curve": ()}
    return configs.base(out="results/recipes", **common | values)


def quick(*names: str) -> dict[str, int]:
    """One epoch of each of these stages."""
    return dict.fromkeys((*names, "tune_epochs"), 1)
