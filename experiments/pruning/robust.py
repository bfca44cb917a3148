"""Question: which pruning keeps accuracy under attack, at once and after a short adversarial fine-tune?

Papers: HYDRA (arXiv 2002.10509), `method` "learnt_scores", whose scores are trained under attack for `score_epochs`
first; MAD (2204.02738), "mad"; SWAP (2310.04918), "swap"; and "magnitude" and "random" (with ERK), which they must
beat. `stage` is "one-shot" or "fine-tuned", for `tune_epochs`.
Command: python -m experiments.run --config=experiments/pruning/robust.py --config.method=magnitude \
    --config.network=resnet8 --config.data_dir=DIR --config.examples=500 --config.training=5000
Time: 370 s on two CPU cores.
Expected: clean 50.2 %, worst 20.2 % (dense: 59.0 and 31.2 %), 45,969 bytes; random 28.0 and 4.4 %, learnt scores, whose
norms were frozen then, 48.4 and 23.6 %.
"""

from ml_collections import ConfigDict, config_dict

from experiments.common import compressing
from experiments.common.subject import Subject, tuned
from experiments.pruning import options, scored
from spartax import checks, prune
from spartax.records import Params, Transform

METHODS = ("magnitude", "random", "learnt_scores", "mad", "swap")
BEFORE, AFTER = "one-shot", "fine-tuned"

judges = options.judges


def get_config() -> ConfigDict:
    return options.base(
        method="magnitude",
        sparsity=0.9,
        stage=AFTER,
        zero_saliency=config_dict.placeholder(str),  # of mad: "magnitude" when left out, "keep" or "paper"
        calibration=1024,
        score_epochs=2,
        score_rate=2e-3,  # of Adam, on scores that begin as weights divided by the largest
        tune_epochs=2,
        attacked=True,
        autoattack=True,
    )


def label(config: ConfigDict) -> str:
    zeros = f" ({config.zero_saliency})" if config.zero_saliency else ""
    return f"{config.method}{zeros}, {config.sparsity:.0%}, {config.stage}"


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """The pruned network."""
    checks.one_of("--config.stage", config.stage, (BEFORE, AFTER))
    params = compressing.compressed(config, subject, transform(config, subject.eps))
    if config.method == "learnt_scores":
        keep = compressing.scores_and_norms(subject.variables["params"])
        params = tuned(subject, params, config.score_epochs, config.seed, config.score_rate, keep=keep)
        params = prune.finish(params)
    finish = compressing.refreshed if config.stage == BEFORE else compressing.repaired
    return finish(config, subject, params)


def transform(config: ConfigDict, eps: float) -> Transform:
    """The pruning of a method."""
    checks.one_of("--config.method", config.method, METHODS)
    if config.zero_saliency and config.method != "mad":
        raise ValueError(f"--config.zero_saliency is of mad alone; got --config.method={config.method}.")
    if config.method == "learnt_scores":
        return prune.learnt_scores(config.sparsity)
    if config.method == "swap":
        return prune.swap(config.sparsity)
    allocation = prune.erk() if config.method == "random" else None
    criterion = scored.criterion(config.method, eps, config.zero_saliency or scored.ZEROS)
    return prune.prune(criterion, config.sparsity, allocation)
