"""Question: how accurate is the network before pruning?

Paper: Madry et al., "Towards deep learning models resistant to adversarial attacks" (arXiv 1706.06083).
Command: python -m experiments.run --config=experiments/pruning/dense.py --config.network=resnet8 \
    --config.data_dir=DIR --config.examples=500 --config.training=5000 --config.attacked=True --config.autoattack=True
Time: 497 s on two CPU cores.
Expected: clean 59.0 %, worst 31.2 % of the first 500 images at linf 8/255, 298,820 bytes.
"""

from ml_collections import ConfigDict

from experiments.common import dense
from experiments.pruning import options

label, build, judges = dense.label, dense.build, options.judges


def get_config() -> ConfigDict:
    return options.base(method="dense", role="dense", attacked=False)
