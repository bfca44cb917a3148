"""What an evaluation by AutoAttack says."""

import dataclasses
import json
from typing import Any, NamedTuple

import numpy as np

from spartax.attacks.trust import Trust


class BrokenBy(NamedTuple):
    """How each example was broken.

    Attributes:
      attack: name of the attack, str [N]; `"clean"` where the clean image is misclassified, `""` where robust.
      rank: rank of the target class (1 is the runner-up), int [N]; 0 for an untargeted run, -1 if no attack broke it.
      iteration: iteration of the first success, int [N]; -1 if no attack broke it.
    """

    attack: np.ndarray
    rank: np.ndarray
    iteration: np.ndarray


@dataclasses.dataclass(frozen=True)
class AutoAttackResult:
    """The worst case over all attacks, example by example.

    Attributes:
      x_adv: the image that breaks each example, float32 [N, ...]; the clean image where it is robust, or misclassified
        as it is.
      robust: bool [N], correctly classified and broken by no attack.
      broken_by: which attack, target and iteration broke each example.
      distance: norm of `x_adv - x`, float [N].
      clean_accuracy: share of all examples classified correctly, in [0, 1].
      robust_accuracy: share of robust examples.
      accuracy_after: attack -> share of examples still robust after it.
      settings: every hyper-parameter of every attack, JSON friendly.
      warnings: what the reader of these numbers must know.
      passes: attack -> (forward passes, backward passes), in images, counting the rows that were really computed.
      seconds: attack -> wall-clock seconds, compilation included; also of the clean pass and the checks of trust.
      trust: whether the gradients can be believed; None if it was not asked for.
    """

    x_adv: np.ndarray
    robust: np.ndarray
    broken_by: BrokenBy
    distance: np.ndarray
    clean_accuracy: float
    robust_accuracy: float
    accuracy_after: dict[str, float]
    settings: dict[str, Any]
    warnings: tuple[str, ...]
    passes: dict[str, tuple[int, int]]
    seconds: dict[str, float]
    trust: Trust | None = None

    def to_json(self, **about: Any) -> str:
        """The result as JSON, without the images: the keys of a RobustBench entry and more.

        Args:
          **about: what the result does not know: `architecture`, `dataset`, `name`, `authors`, `link`, `venue`, ...
        """
        entry: dict[str, Any] = {"link": "", "name": "", "authors": "", "additional_data": False, "venue": ""}
        entry |= {"number_forward_passes": 1, "dataset": "", "architecture": "", "threat_model": self.threat_model()}
        entry |= {"eps": as_fraction(self.settings["eps"]), "clean_acc": percent(self.clean_accuracy)}
        entry |= {"reported": "", "autoattack_acc": percent(self.robust_accuracy), "footnote": ""}
        entry |= {"unreliable": bool(self.warnings)}
        entry |= {"accuracy_after": self.accuracy_after, "warnings": self.warnings, "settings": self.settings}
        entry |= {"trust": self.trust and self.trust._asdict()}
        entry |= {"passes": self.passes, "seconds": self.seconds, "robust": self.robust.tolist()}
        entry |= {"broken_by": {name: values.tolist() for name, values in self.broken_by._asdict().items()}}
        entry |= {"distance": [round(float(value), 7) for value in self.distance]}
        return json.dumps(entry | about)

    def threat_model(self) -> str:
        """The norm as RobustBench spells it."""
        return {"linf": "Linf", "l2": "L2", "l1": "L1"}[self.settings["norm"]]


def percent(share: float) -> str:
    """`0.5234` as `"52.34"`."""
    return f"{100 * share:.2f}"


def as_fraction(eps: float) -> str:
    """`"8/255"` for 8/255, and a decimal number for what is no whole number of gray levels."""
    levels = round(255 * eps)
    return f"{levels}/255" if levels and abs(levels / 255 - eps) < 1e-9 else f"{eps:g}"
