"""Checkpoints that earlier releases wrote, until 0.1, as this one reads them: for studies that go on after an upgrade.

There the tensors of all parts lay side by side ("copies/…", "scores/…"), with their facts in one list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.training.state import State, grouped, joined


def as_now(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], spec: AtmcSpec) -> State:
    """The state of a trial in today's layout, whichever it came in.

    Args:
        tensors: of the checkpoint.
        facts: of the checkpoint.
        spec: of the trial.
    """
    if "parts" in facts:
        return dict(tensors), dict(facts)
    apart = {path: tensor for path, tensor in tensors.items() if path.partition("/")[0] in ("good", "best")}
    own, parts = _trained({path: tensor for path, tensor in tensors.items() if path not in apart}, facts, spec)
    groups = grouped(apart)
    best, collapsed_at, good_facts = facts["guard"]
    good, kept = _trained(groups["good"], good_facts, spec) if "good" in groups else ({}, None)
    robust, since = facts["selection"]
    chosen = {"best": robust, "since": since, "metrics": facts["best"] or None}
    if spec.compress.target is not None:
        chosen = {}  # the target chooses, and is a part
    return {**own, **joined({"good": good, "choice": groups.get("best", {})})}, {
        "parts": parts,
        "guard": {"best": best, "collapsed_at": collapsed_at, "good": kept},
        "choice": chosen,
        "epoch": facts["epoch"],
        "seconds": facts["seconds"],
    }


def _trained(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], spec: AtmcSpec) -> State:
    """What training has made of the weights, by parts."""
    groups = grouped(tensors)
    now: dict[str, Mapping[str, Tensor]] = {name: groups[name] for name in ("model", "momentum") if name in groups}
    parts: dict[str, dict[str, Any]] = {}
    if "bits" in facts:
        name, names = (
            ("admm", ("copies", "duals", "centres"))
            if "copies" in groups
            else (
                "straight_through",
                ("centres", "edges"),
            )
        )
        now[name] = joined({key: groups[key] for key in names if key in groups})
        parts[name] = {"bits": facts["bits"], "seed": spec.seed, "price": spec.compress.code_price}
    if "scores" in groups:
        now["scored"] = joined({key: groups[key] for key in ("scores", "velocities", "quotas") if key in groups})
        parts["scored"] = facts.get("quotas", {})
    if "average" in groups:
        now["average"], parts["average"] = groups["average"], {"steps": facts["averaged_steps"]}
    for earlier, name in (("TargetControl", "target"), ("ByteBudget", "bytes")):
        if earlier in facts:
            now[name], parts[name] = groups.get(earlier, {}), facts[earlier]
    return joined(now), parts
