"""Question: how accurate is the network before quantization, clean and under attack?

Paper: Madry et al., "Towards deep learning models resistant to adversarial attacks" (arXiv 1706.06083).
Command: python -m experiments.run --config=experiments/quantization/dense.py --config.network=cnn_a \
    --config.data_dir=DIR --config.calibration=512 --config.training=512 --config.restarts=1
Time: 21 s on two CPU cores.
Expected: clean 66.8 %, worst 54.3 % of the first 256 images at linf 2/255, 812,101 bytes.
"""

from ml_collections import ConfigDict

from experiments.common import dense
from experiments.quantization import options

label, build = dense.label, dense.build


def get_config() -> ConfigDict:
    return options.base(method="dense", role="dense")
