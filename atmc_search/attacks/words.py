"""An attack in words, for messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def attack_in_words(attack: Mapping[str, Any], norm: str, eps: float) -> str:
    """Name, settings and threat model: "attack pgd (steps 20), linf eps 0.1".

    Args:
        attack: `name` and settings, plain values.
        norm: of the threat model.
        eps: its radius.
    """
    settings = ", ".join(f"{k} {json.dumps(v)}" for k, v in attack.items() if k != "name" and v is not None)
    return f"attack {attack['name']}{f' ({settings})' if settings else ''}, {norm} eps {eps:g}"
