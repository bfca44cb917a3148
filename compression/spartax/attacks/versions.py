"""Which attacks the named versions of AutoAttack consist of."""

from spartax import checks
from spartax.attacks import losses
from spartax.attacks.apgd import apgd
from spartax.attacks.apgd_targeted import apgd_targeted
from spartax.attacks.fab import fab
from spartax.attacks.resumable import Resumable
from spartax.attacks.square import square

VERSIONS = ("standard", "plus", "rand")


def members(version: str, eps: float, norm: str, classes: int, *, parity: bool) -> tuple[list[Resumable], list[str]]:
    """The attacks of a version in their order, and what had to be changed for lack of classes.

    | version | attacks |
    |---|---|
    | standard | apgd-ce, apgd-t, fab-t, square; l1: 5 restarts of apgd-ce, 5 targets of apgd-t, both from large radii |
    | plus | 5 restarts of apgd-ce, of apgd-dlr and of untargeted fab; then square, apgd-t, fab-t |
    | rand | apgd-ce and apgd-dlr with gradients averaged over 20 draws |

    See Croce and Hein, AutoAttack, arXiv 2003.01690; for l1 arXiv 2103.01208.
    """
    checks.one_of("version", version, VERSIONS)
    loss = losses.dlr if classes > 3 else losses.margin
    chosen = {"standard": standard, "plus": plus, "rand": rand}[version](eps, norm, loss, parity)
    warnings = []
    if classes < 10:
        warnings.append(f"{classes} classes: the targeted attacks aim at {classes - 1} classes, not at 9.")
    if classes == 3:
        warnings.append("3 classes: the margin takes the place of the DLR loss.")
    if classes == 2:
        warnings.append("2 classes: the DLR loss is not defined, so apgd-dlr and apgd-t are left out.")
        chosen = [attack for attack in chosen if attack.name not in ("apgd-dlr", "apgd-t")]
    return chosen, warnings


def standard(eps: float, norm: str, loss: losses.Loss, parity: bool) -> list[Resumable]:
    """Four attacks, each against a different weakness of the others."""
    del loss
    sparse = {"large_eps": norm == "l1", "parity": parity}
    return [
        apgd(eps, norm, restarts=5 if norm == "l1" else 1, **sparse).named("apgd-ce"),
        apgd_targeted(eps, norm, targets=5 if norm == "l1" else 9, **sparse).named("apgd-t"),
        fab(eps, norm, targets=9).named("fab-t"),
        square(eps, norm, parity=parity).named("square"),
    ]


def plus(eps: float, norm: str, loss: losses.Loss, parity: bool) -> list[Resumable]:
    """More restarts, and the untargeted form of every attack."""
    return [
        apgd(eps, norm, restarts=5, parity=parity).named("apgd-ce"),
        apgd(eps, norm, loss=loss, restarts=5, parity=parity).named("apgd-dlr"),
        fab(eps, norm, targets=None, restarts=5).named("fab"),
        square(eps, norm, parity=parity).named("square"),
        apgd_targeted(eps, norm, targets=9, parity=parity).named("apgd-t"),
        fab(eps, norm, targets=9).named("fab-t"),
    ]


def rand(eps: float, norm: str, loss: losses.Loss, parity: bool) -> list[Resumable]:
    """For models that draw."""
    return [
        apgd(eps, norm, eot=20, parity=parity).named("apgd-ce"),
        apgd(eps, norm, loss=loss, eot=20, parity=parity).named("apgd-dlr"),
    ]
