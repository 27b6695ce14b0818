"""The adversary: a threat model and the attacks that search it.

An attack is a frozen pydantic model whose fields are its settings; calling it on `(model, x, y, threat, generator)`
returns adversarial images. To add one: a file with such a class, and a line in `ATTACKS`. `perturb` is the only way
the rest of the product runs an attack: it sets the model to eval mode, computes effective weights once, and clips
what comes back to the threat model, whatever the attack did.
"""

from inspect import isabstract

from atmc_search.attacks.apgd_ce import APGDCE
from atmc_search.attacks.apgd_t import APGDT
from atmc_search.attacks.autoattack import AutoAttack
from atmc_search.attacks.base import Attack, Reference, frozen_weights, perturb
from atmc_search.attacks.fgsm import FGSM
from atmc_search.attacks.fgsm_rs import FGSMRS
from atmc_search.attacks.none import NoAttack
from atmc_search.attacks.pgd import PGD
from atmc_search.attacks.threat import ThreatModel, checked_threat, clip, distance, random_start, require_pixel_units
from atmc_search.attacks.words import attack_in_words
from atmc_search.attacks.wrm import WRM
from atmc_search.errors import SpecError, shown
from atmc_search.registry import resolve, validated
from atmc_search.spec import Component

ATTACKS: dict[str, type[Attack]] = {
    "none": NoAttack,
    "fgsm": FGSM,
    "fgsm_rs": FGSMRS,
    "pgd": PGD,
    "wrm": WRM,
    "apgd_ce": APGDCE,
    "apgd_t": APGDT,
    "autoattack": AutoAttack,
}

__all__ = [
    "APGDCE",
    "APGDT",
    "ATTACKS",
    "FGSM",
    "FGSMRS",
    "PGD",
    "WRM",
    "Attack",
    "AutoAttack",
    "NoAttack",
    "Reference",
    "ThreatModel",
    "attack_in_words",
    "build_attack",
    "checked_threat",
    "clip",
    "distance",
    "frozen_weights",
    "perturb",
    "random_start",
    "require_pixel_units",
]


def build_attack(component: Component, *, path: str) -> Attack:
    """The attack that a spec names at `path`.

    Raises:
        SpecError: unknown name, not an attack, unknown or impossible setting.
    """
    kind = resolve(component.name, ATTACKS, path=f"{path}.name")
    if not (isinstance(kind, type) and issubclass(kind, Attack)) or isabstract(kind):
        raise SpecError(
            f"{path}.name = {shown(component.name)}: is no attack; name a subclass of atmc_search.attacks.Attack"
        )
    attack: Attack = validated(kind, component.args, path=path)
    return attack
