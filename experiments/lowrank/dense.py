"""Question: how accurate is the network before it is factorized, clean and under attack?

Paper: Madry et al., "Towards deep learning models resistant to adversarial attacks" (arXiv 1706.06083).
Command: python -m experiments.run --config=experiments/lowrank/dense.py --config.network=resnet2b \
    --config.data_dir=DIR --config.autoattack=True --config.examples=200
Time: 47 s on two CPU cores (258 s for CNN-A).
Expected: clean 67.0 %, worst 56.5 % of the first 200 images at linf 2/255, 421,865 bytes (CNN-A: 68.0 and 53.5 %).
"""

from ml_collections import ConfigDict

from experiments.common import dense
from experiments.lowrank import options

label, build, judges = dense.label, dense.build, options.judges


def get_config() -> ConfigDict:
    return options.base(method="dense", role="dense")
