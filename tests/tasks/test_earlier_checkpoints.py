"""Checkpoints of release 0.1 and before, written here as they lay in files, continue to the bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from atmc_search.tasks.atmc import AtmcTask
from atmc_search.training.parts import Admm, Average, Scored, StraightThrough
from atmc_search.training.state import State

CUBIC = {"name": "cubic", "from": 0.1, "to": 0.6, "freeze": 0.9}
KINDS: dict[str, dict[str, Any]] = {
    "admm, priced": {"compress": {"code_price": 0.02, "factors": "uvc"}},
    "admm, mixed": {"compress": {"bit_allocation": "mixed", "factors": "uvc"}},
    "straight_through": {"compress": {"codebook": "straight_through"}},
    "straight_through, priced": {"compress": {"codebook": "straight_through", "code_price": 0.02}},
    "no codebook yet": {"compress": {"codebook_from": 0.9, "schedule": CUBIC}},
    "hydra, searching": {"compress": {"pruning": "hydra", "scores": {"share": 0.7}}},
    "harp, searching": {"compress": {"pruning": "harp", "scores": {"share": 0.7}}},
    "harp, over": {"compress": {"pruning": "harp", "scores": {"share": 0.3}, "keep": 0.05}},
    "average, best": {"train": {"ema": 0.9}, "evaluate": {"select": "best"}},
    "guard": {"train": {"guard": True, "ema": 0.9}},
    "patience": {"train": {"patience": 2}, "compress": {"bits": 32}},
    "target": {"compress": {"keep": None, "target": {"clean_accuracy": 0.6}}},
    "bytes": {"compress": {"keep": None, "bits": 32, "budget_bytes": 1000, "schedule": CUBIC}},
}


def as_before(task: AtmcTask) -> State:
    """The checkpoint of a task, as release 0.1 wrote it."""
    now, facts_now = task.state_dict()
    tensors, facts = trained_before(task, "", facts_now["parts"])
    best, collapsed_at, good = (facts_now["guard"][key] for key in ("best", "collapsed_at", "good"))
    good_facts: dict[str, Any] = {}
    if good is not None:
        found, good_facts = trained_before(task, "good/", good)
        tensors |= {f"good/{name}": tensor for name, tensor in found.items()}
    choice = facts_now["choice"]
    if "choice/artifact" in now:
        tensors["best/artifact"] = now["choice/artifact"]
    return tensors, {
        **facts,
        "epoch": task.epoch,
        "seconds": facts_now["seconds"],
        "guard": [best, collapsed_at, good_facts],
        "selection": [choice.get("best"), choice.get("since", 0)],
        "best": choice.get("metrics") or {},
    }


def trained_before(task: AtmcTask, under: str, parts_now: dict[str, Any]) -> State:
    """What training had made of the weights: tensors of all parts side by side, and one dictionary of facts."""
    now, _ = task.state_dict()
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}

    def move(earlier: str, part: str) -> None:
        head = f"{under}{part}/"
        tensors.update({f"{earlier}/{name[len(head) :]}": t for name, t in now.items() if name.startswith(head)})

    move("model", "model")
    move("momentum", "momentum")
    for part in task._training.step.parts:
        held = parts_now[part.name]
        if isinstance(part, Admm) and held:
            for name in ("copies", "duals", "centres"):
                move(name, f"admm/{name}")
            facts["bits"] = held["bits"]
        if isinstance(part, StraightThrough) and held:
            for name in ("centres", "edges"):
                move(name, f"straight_through/{name}")
            facts["bits"] = held["bits"]
        if isinstance(part, Scored) and any(name.startswith(f"{under}scored/") for name in now):
            for name in ("scores", "velocities", "quotas"):
                move(name, f"scored/{name}")
            if held:
                facts["quotas"] = held
        if isinstance(part, Average):
            move("average", "average")
            facts["averaged_steps"] = held["steps"]
        for earlier, name in (("TargetControl", "target"), ("ByteBudget", "bytes")):
            if part.name == name:
                move(earlier, name)
                facts[earlier] = held
    return tensors, facts


def said(task: AtmcTask) -> dict[str, Any]:
    """The facts of a task's checkpoint; a part without any may be missing."""
    facts: dict[str, Any] = json.loads(json.dumps(task.state_dict()[1]))
    for parts in (facts["parts"], facts["guard"]["good"] or {}):
        for name in [name for name, held in parts.items() if not held]:
            del parts[name]
    return facts


@pytest.mark.parametrize("kind", KINDS)
def test_an_earlier_checkpoint_continues_to_the_bit(tiny_trial, tiny_splits, tiny_start, kind):
    changes = {section: dict(values) for section, values in KINDS[kind].items()}
    changes["train"] = {"epochs": 3, "attack": {"name": "fgsm"}} | changes.get("train", {})
    changes["compress"] = {"codebook_from": 0.3, "rho": 0.3} | changes.get("compress", {})
    changes["evaluate"] = {"attack": {"name": "fgsm"}, "masking_images": 0} | changes.get("evaluate", {})
    spec = tiny_trial(**changes)

    def made() -> AtmcTask:
        return AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={})

    whole = made()
    whole.step()
    whole.step()
    tensors, facts = as_before(whole)
    assert "parts" not in facts
    groups = {name.partition("/")[0] for name in tensors}
    assert groups <= {
        "model", "momentum", "copies", "duals", "centres", "edges", "scores", "velocities", "quotas", "average",
        "TargetControl", "ByteBudget", "good", "best",
    }  # fmt: skip
    again = made()
    again.load_state_dict({name: t.detach().clone() for name, t in tensors.items()}, json.loads(json.dumps(facts)))
    for name, tensor in whole.state_dict()[0].items():
        assert torch.equal(again.state_dict()[0][name], tensor), name
    assert said(again) == said(whole)
    rows = [task.step() for task in (whole, again)]
    assert {name: value for name, value in rows[0].items() if not name.endswith("_s")} == {
        name: value for name, value in rows[1].items() if not name.endswith("_s")
    }
    assert whole.artifact() == again.artifact()
    for name, tensor in whole.state_dict()[0].items():
        assert torch.equal(again.state_dict()[0][name], tensor), name
