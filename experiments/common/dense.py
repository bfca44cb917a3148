"""What the config files of networks before compression share; a study adds its options and attacks."""

from ml_collections import ConfigDict


def label(config: ConfigDict) -> str:
    """As shown in tables."""
    return config.method


def build(config: ConfigDict) -> tuple:
    """Nothing is compressed."""
    del config
    return ()
