"""Question: what do scores, trained under attack, leave when the best weights stay and are trained again (HYDRA)?

Paper: Sehwag et al., HYDRA: Pruning Adversarially Robust Neural Networks (arXiv 2002.10509), under TRADES.
Command: python -m experiments.run --config=experiments/robust_training/recipes/hydra.py --config.sparsity=0.95
Time: about 3 minutes on two busy CPU cores, training of the dense network included.
Expected: with seed 0 clean 83.2 % and worst of the attacks 56.9 %, the most of this folder at 95 %.
"""

from ml_collections import ConfigDict

from experiments.common import compressing
from experiments.common.subject import Subject, tuned
from experiments.robust_training.recipes import options
from spartax import prune, train
from spartax.records import Params

QUICK = options.quick("score_epochs")


def get_config() -> ConfigDict:
    return options.base(method="HYDRA", sparsity=0.95, beta=6.0, score_epochs=10, score_rate=2e-3)


def label(config: ConfigDict) -> str:
    return f"{config.method}, {config.sparsity:.0%}"


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """Uniform sparsity, as in the paper; scores begin as magnitudes."""
    loss = train.trades(subject.eps, beta=config.beta)
    scores = prune.learnt_scores(config.sparsity)
    keep = compressing.scores_and_norms(subject.variables["params"])
    score = (config.score_epochs, config.seed, config.score_rate, scores, keep)
    found = prune.finish(tuned(subject, subject.variables, *score, loss=loss))
    return tuned(subject, found, config.tune_epochs, config.seed, config.tune_rate, loss=loss)
