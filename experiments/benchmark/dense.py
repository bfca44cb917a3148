"""Question: how accurate is the network before compression, clean and under attack?

Paper: Madry et al., "Towards deep learning models resistant to adversarial attacks" (arXiv 1706.06083).
Command: python -m experiments.run --config=experiments/benchmark/dense.py
Time: about 30 s on two CPU cores, most of it training.
Expected: with seed 0 clean 97.3 %, worst of the attacks 82.1 % (linf 0.1, all 364 test digits), 153,448 bytes.
"""

from ml_collections import ConfigDict

from experiments.common import configs, dense

label, build = dense.label, dense.build


def get_config() -> ConfigDict:
    return configs.base(method="dense", role="dense")
