"""Question: how robust does a small network become on two CPU cores, from random weights on CIFAR-10?

Papers: *Eliminating Catastrophic Overfitting Via Abnormal Adversarial Examples Regularization*, `loss` "aaer"; Wong et
al. (arXiv 2001.03994), "fgsm_rs"; Madry et al. (1706.06083), "pgd7"; "clean" for comparison. `network` is "resnet8",
"resnet14", "resnet20", ... The weights with most held-out images robust are written to `out` as safetensors, the log of
the training beside them; killed and run again, the same command goes on from the last epoch.
Command: python -m experiments.run --config=experiments/robust_training/base.py --config.data_dir=DIR
Time: 67 min of training and 9 min of AutoAttack on two busy CPU cores.
Expected: clean 61.0 %, PGD-20 31.0 %, AutoAttack 27.1 % of the first 1,000 test images; with `network` "resnet20" and
12 `epochs` 70.8, 40.6 and 36.2 % of the first 500.
"""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from experiments.common import configs
from experiments.common.subject import Subject
from experiments.robust_training.training import LOSSES, trained
from spartax import attacks, checks, data, models
from spartax.records import Attack

QUICK = {"noise": True, "training": 80, "examples": 16, "epochs": 1, "batch": 32, "pgd_steps": 2, "curve": ()}


def get_config() -> ConfigDict:
    return configs.base(
        method="robust training",
        role="dense",
        network="resnet8",
        loss="aaer",
        eps=8 / 255,
        epochs=20,
        batch=128,
        rate=0.2,  # the highest
        training=50000,
        examples=1000,
        restarts=1,
        autoattack=True,
        curve=(),
        noise=False,  # images of noise in place of CIFAR-10: does everything run?
        out="results/robust_training",
    )


def label(config: ConfigDict) -> str:
    seed = f"_seed{config.seed}" if config.seed else ""  # names without one are those of committed weights
    return f"cifar10_linf{config.eps * 255:g}_{config.network}_{config.loss}{seed}"


def build(config: ConfigDict) -> tuple:
    del config
    return ()


def judges(config: ConfigDict, eps: float) -> dict[str, Attack]:
    """What AutoAttack does not have."""
    return {f"PGD-{config.pgd_steps}": attacks.pgd(eps, steps=config.pgd_steps)}


def subject(config: ConfigDict) -> Subject:
    """The network after its training.

    Raises:
      ValueError: an unknown network or loss, a negative radius, no images, no data.
    """
    check(config)
    module = models.resnet_cifar(int(config.network.removeprefix("resnet")), shortcut="B")
    images, test = noise(config) if config.noise else (cifar(config, "train"), cifar(config, "test"))
    folder = pathlib.Path(config.out)
    rest, best = trained(config, label(config), module, images, folder)
    about = {"training": f"{config.loss}, Linf {config.eps * 255:g}/255", "source": "experiments/robust_training"}
    models.save(folder / f"{label(config)}.safetensors", module, best, about)
    return Subject(label(config), models.eval_apply(module), best, test, config.eps, 255, rest, module)


def check(config: ConfigDict) -> None:
    """What can be wrong is said before anything is read."""
    checks.one_of("--config.network", config.network, tuple(f"resnet{depth}" for depth in range(8, 116, 6)))
    checks.one_of("--config.loss", config.loss, tuple(LOSSES))
    checks.in_range("--config.eps", config.eps, 0.0, 1.0)
    for name in ("epochs", "batch", "training", "examples"):
        checks.positive_int(f"--config.{name}", config[name])
    if config.data_dir is None and not config.noise:
        raise ValueError("--config.data_dir=DIR is needed, a folder with CIFAR-10 as tfds prepares it (not by --quick)")


def cifar(config: ConfigDict, split: str) -> data.Dataset:
    """The first images of a split."""
    count = config.training if split == "train" else config.examples
    return data.load("cifar10", f"{split}[:{count}]", config.data_dir)


def noise(config: ConfigDict) -> tuple[data.Dataset, data.Dataset]:
    """Sets of the right shape in which there is nothing to learn."""
    draw, names = np.random.default_rng(0), tuple("0123456789")
    train, test = (
        data.Dataset(draw.random((n, 32, 32, 3), np.float32), draw.integers(0, 10, n, np.int32), "noise", 10, names)
        for n in (config.training, config.examples)
    )
    return train, test
