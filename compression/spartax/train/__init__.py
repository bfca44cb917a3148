"""Training and fine-tuning, clean and adversarial, of dense and compressed networks."""

from spartax import catalog
from spartax.train import losses
from spartax.train.accelat import Rate, accelat, accelat_step
from spartax.train.alrs import alrs
from spartax.train.averages import averaged, ema, swa
from spartax.train.batch_stats import reestimate_batch_stats
from spartax.train.checkpoints import Checkpoints, checkpoints
from spartax.train.class_dependent import Round, class_dependent, class_weights
from spartax.train.conadv import conadv, look_ahead, with_adversary
from spartax.train.fit import BadBatchError, NotFiniteError, fit
from spartax.train.logs import Log, json_lines, tensorboard
from spartax.train.lottery import Ticket, lottery
from spartax.train.mixed_precision import mixed_precision
from spartax.train.network import Loss, Network, TrainApply, attacking
from spartax.train.overfitting import Overfitting, overfitting
from spartax.train.progressive import Student, ensemble, progressive
from spartax.train.pull_removed import pull_removed
from spartax.train.refresh import Method, Refresh, begin, make_refresh, restart_moments
from spartax.train.robust_gap import robust_gap
from spartax.train.step import State, init_state, make_step
from spartax.train.sustainability import Activations, most_vulnerable, sustainability
from spartax.train.switching import switching
from spartax.train.validation import Best, Validation, validation
from spartax.train.warm_up import warm_up

__all__ = [
    "Activations",
    "BadBatchError",
    "Best",
    "Checkpoints",
    "Log",
    "Loss",
    "Method",
    "Network",
    "NotFiniteError",
    "Overfitting",
    "Rate",
    "Refresh",
    "Round",
    "State",
    "Student",
    "Ticket",
    "TrainApply",
    "Validation",
    "accelat",
    "accelat_step",
    "alrs",
    "attacking",
    "averaged",
    "begin",
    "checkpoints",
    "class_dependent",
    "class_weights",
    "conadv",
    "ema",
    "ensemble",
    "fit",
    "init_state",
    "json_lines",
    "look_ahead",
    "losses",
    "lottery",
    "make_refresh",
    "make_step",
    "mixed_precision",
    "most_vulnerable",
    "overfitting",
    "progressive",
    "pull_removed",
    "reestimate_batch_stats",
    "restart_moments",
    "robust_gap",
    "sustainability",
    "swa",
    "switching",
    "tensorboard",
    "validation",
    "warm_up",
    "with_adversary",
]

__getattr__, __dir__ = catalog.exports(__name__, losses)
