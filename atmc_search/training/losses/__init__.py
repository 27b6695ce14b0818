"""What a training step minimises. To add a loss: a file with a `Loss` subclass, and a line in `LOSSES`."""

from inspect import isabstract

from atmc_search.attacks import build_attack
from atmc_search.errors import SpecError, shown
from atmc_search.registry import resolve, validated
from atmc_search.training.losses.base import Loss, weighted_mean
from atmc_search.training.losses.cross_entropy import CrossEntropy
from atmc_search.training.losses.trades import Trades
from atmc_search.training.stage import StageSpec

LOSSES: dict[str, type[Loss]] = {"cross_entropy": CrossEntropy, "trades": Trades}

__all__ = ["LOSSES", "CrossEntropy", "Loss", "Trades", "build_loss", "weighted_mean"]


def build_loss(stage: StageSpec, *, path: str) -> Loss:
    """The loss of a stage at `path` ("trial.train").

    Raises:
        SpecError: unknown name, not a loss, unknown or impossible setting, or one that the stage's attack (looked at
            too) cannot serve.
    """
    attack = build_attack(stage.attack, path=f"{path}.attack")
    kind = resolve(stage.loss.name, LOSSES, path=f"{path}.loss.name")
    if not (isinstance(kind, type) and issubclass(kind, Loss)) or isabstract(kind):
        raise SpecError(
            f"{path}.loss.name = {shown(stage.loss.name)}: is no loss; name a subclass of "
            "atmc_search.training.losses.Loss"
        )
    loss: Loss = validated(kind, stage.loss.args, path=f"{path}.loss")
    if loss.reference is not None and not attack.can_diverge:
        raise SpecError(
            f"{path}.loss.name = {stage.loss.name!r}: needs an attack on the divergence between predictions, which "
            f"{path}.attack, {shown(stage.attack.name)} with these settings, is not; use pgd with a random start, "
            "one restart and no targets"
        )
    return loss
