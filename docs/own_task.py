"""A task of one's own: a linear model of a table, with few terms and a small error. own-task.md explains it."""

import json

import torch
from pydantic import Field
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import PolynomialFeatures, scale

from atmc_search.results import Column
from atmc_search.spec import Section, TrialSpec
from atmc_search.tasks import Figure, Remeasured, Start, Task

RATE = 0.1
OLS = "least squares"


class Fit(Section):
    epochs: int = Field(10, ge=1, description="epochs of 100 steps each")
    penalty: float = Field(gt=0, description="weight of the absolute sum of the coefficients")


class SparseSpec(TrialSpec):
    fit: Fit


class SparseTask(Task):
    Spec = SparseSpec
    start_name = OLS
    columns = (
        Column("terms", "int64", "terms", "coefficients that are not 0", baseline="start_terms", baseline_name=OLS),
        Column("error", "float64", "points", "mean absolute error on validation patients", better="min",
               samples="patients", baseline="start_error", baseline_name=OLS),
        Column("error_low", "float64", "points", "lower end of the 95 % interval of error"),
        Column("error_high", "float64", "points", "upper end of that interval"),
        Column("patients", "int64", "patients", "validation patients"),
        Column("start_terms", "int64", "terms", "terms of the least squares model"),
        Column("start_error", "float64", "points", "error of the least squares model"),
    )  # fmt: skip

    @classmethod
    def load(cls, spec):
        table = load_diabetes()  # or a file of yours
        x = scale(PolynomialFeatures(2, include_bias=False).fit_transform(table.data))
        x, y = torch.tensor(x).float(), torch.tensor(table.target - table.target.mean()).float()
        rows = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).split([242, 100, 100])
        return {name: (x[own], y[own]) for name, own in zip(("train", "validation", "test"), rows, strict=True)}

    @classmethod
    def make_start(cls, spec, data, *, device, report):
        x, y = data["train"]
        weights = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
        error = measured(weights, data["validation"])["error"]
        return Start({"weights": weights}, {"start_terms": len(weights), "start_error": error})

    def __init__(self, spec, data, start, *, device, meta):
        self.penalty, self.data, self.start, self.meta = spec.fit.penalty, data, start, dict(meta)
        self.weights = start.tensors["weights"]
        self.epochs, self.epoch = spec.fit.epochs, 0

    def step(self):
        x, y = self.data["train"]
        for _ in range(100):  # a gradient step on the squared error; then small weights become 0
            moved = self.weights - RATE * x.T @ (x @ self.weights - y) / len(y)
            self.weights = torch.nn.functional.softshrink(moved, RATE * self.penalty)
        self.epoch += 1
        return {"terms": int((self.weights != 0).sum()), "patients": len(self.data["validation"][1]),
                **measured(self.weights, self.data["validation"]), **self.start.facts}  # fmt: skip

    def artifact(self):
        return json.dumps({**self.meta, "weights": self.weights.tolist()}).encode()

    def state_dict(self):
        return {"weights": self.weights}, {"epoch": self.epoch}

    def load_state_dict(self, tensors, facts):
        self.weights, self.epoch = tensors["weights"], facts["epoch"]

    @classmethod
    def remeasure(cls, artifact, spec, data, *, split, options, start, device, trust):
        found = measured(torch.tensor(json.loads(artifact)["weights"]), data[split])
        error = Figure("error", found["error"], found["error_low"], found["error_high"])
        return Remeasured((error,), (len(data[split][1]), f"{split} patients"), row=found)


def measured(weights, split):
    """Mean absolute error and the ends of its 95 % interval."""
    x, y = split
    errors = (x @ weights - y).abs()
    mean, half = errors.mean().item(), 1.96 * errors.std().item() / len(y) ** 0.5
    return {"error": mean, "error_low": mean - half, "error_high": mean + half}
