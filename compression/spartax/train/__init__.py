"""Training and fine-tuning, clean and adversarial, of dense and compressed networks."""

from spartax import catalog
from spartax.train import losses
from spartax.train.batch_stats import reestimate_batch_stats
from spartax.train.fit import fit
from spartax.train.lottery import Ticket, lottery
from spartax.train.network import Loss, Network, TrainApply
from spartax.train.pull_removed import pull_removed
from spartax.train.refresh import Method, Refresh, begin, make_refresh, restart_moments
from spartax.train.step import State, init_state, make_step

__all__ = [
    "Loss",
    "Method",
    "Network",
    "Refresh",
    "State",
    "Ticket",
    "TrainApply",
    "begin",
    "fit",
    "init_state",
    "losses",
    "lottery",
    "make_refresh",
    "make_step",
    "pull_removed",
    "reestimate_batch_stats",
    "restart_moments",
]

__getattr__, __dir__ = catalog.exports(__name__, losses)
