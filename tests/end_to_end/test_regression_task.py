"""A user's task that is no classifier, from its spec to the model that ships: blood pressure as a sum of few terms.

Nothing of ATMC stands in its spec or is imported for it, in the driver or in a worker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from shell import Outcome, Run, one_line, program

from atmc_search import choose, front, load_trials
from atmc_search.errors import SpecError
from atmc_search.results import RunFolder
from atmc_search.spec import load_study
from atmc_search.tasks import TrialSpace

_MODULE = '''
"""Linear regression by proximal gradient steps: a penalty shrinks the terms, and lasso removes some."""

import json, os, sys, time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from atmc_search.errors import AtmcError, SpecError
from atmc_search.results import Column
from atmc_search.spec import Section, TrialSpec
from atmc_search.tasks import Figure, Remeasured, Start, Task


class TableSection(Section):
    rows: int = Field(600, description="patients; half train, a quarter validates, a quarter tests")


class FitSection(Section):
    epochs: int = Field(3, ge=1, description="of 25 steps each")
    lr: float = Field(gt=0, description="step size")
    penalty: Literal["none", "ridge", "lasso"] = Field("ridge", description="what holds the terms small")
    strength: float = Field(0.1, ge=0, description="how hard")


class PressureSpec(TrialSpec):
    table: TableSection = TableSection()
    fit: FitSection


@dataclass(frozen=True)
class Part:
    x: np.ndarray
    y: np.ndarray


class Pressure(Task):
    Spec = PressureSpec
    columns = (
        Column("error", "float64", "mmHg", "root of the mean squared error on validation patients", low=0,
               better="min", samples="patients", baseline="plain_error", baseline_name="least squares"),
        Column("error_low", "float64", "mmHg", "lower end of its interval"),
        Column("error_high", "float64", "mmHg", "upper end of its interval"),
        Column("patients", "int64", "", "validation patients"),
        Column("terms", "int64", "", "terms that are left", low=0, better="min"),
        Column("size_bytes", "int64", "bytes", "length of the JSON file", log=True, low=0, better="min",
               baseline="plain_size_bytes", baseline_name="least squares"),
        Column("plain_error", "float64", "mmHg", "error of plain least squares"),
        Column("plain_size_bytes", "int64", "bytes", "its length"),
        Column("loss", "float64", "mmHg\\u00b2", "mean squared error on training patients"),
    )
    objectives = {"size_bytes": "min", "error": "min"}
    deciding = ("trial.fit.penalty",)
    presets = {"none": "plain least squares", "ridge": "squares of the terms", "lasso": "the terms themselves"}
    start_name = "least squares"

    @classmethod
    def uses(cls, path, trial):
        return path != "trial.fit.strength" or trial["fit"]["penalty"] != "none"

    @classmethod
    def load_key(cls, spec):
        return f"{spec.table.rows} rows"

    @classmethod
    def load(cls, spec):
        rng = np.random.default_rng(7)
        x = rng.normal(size=(spec.table.rows, 24)).astype(np.float32)
        y = 120 + x[:, :4] @ np.float32([9, -6, 4, 2]) + rng.normal(size=len(x)).astype(np.float32) * 5
        ends = np.cumsum([0, len(x) // 2, len(x) // 4, len(x) // 4])
        names = ("train", "validation", "test")
        return {name: Part(x[a:b], y[a:b]) for name, a, b in zip(names, ends, ends[1:])}

    @classmethod
    def describe(cls, spec, data):
        return f"table: {len(data['train'].y)} patients train, {len(data['validation'].y)} validate"

    @classmethod
    def check(cls, spec, data):
        if spec.table.rows < 100:
            raise SpecError(f"trial.table.rows = {spec.table.rows}: too few to fit 24 terms; use at least 100")

    @classmethod
    def least(cls, spec, data):
        return {"size_bytes": len(to_json(np.zeros(24), 0.0))}

    @classmethod
    def reference(cls, spec, data):
        return {"error": float(data["validation"].y.std()), "size_bytes": 1000.0}

    @classmethod
    def start_key(cls, spec, data):
        return f"least-squares-{spec.table.rows}"

    @classmethod
    def make_start(cls, spec, data, *, device, report):
        part = data["train"]
        report({"loss": float(part.y.var())})
        found, *_ = np.linalg.lstsq(np.c_[part.x, np.ones(len(part.y))].astype(np.float64), part.y, rcond=None)
        return Start({"terms": torch.from_numpy(found[:-1]), "offset": torch.tensor(found[-1])})

    @classmethod
    def start_figures_key(cls, spec, data):
        return f"of-{len(data['validation'].y)}-patients"

    @classmethod
    def measure_start(cls, spec, data, start, *, device):
        artifact = to_json(start.tensors["terms"].numpy(), start.tensors["offset"].item())
        return {"plain_error": measured(artifact, data["validation"])[0], "plain_size_bytes": len(artifact)}

    def __init__(self, spec, data, start, *, device, meta):
        assert not [name for name in sys.modules if name.startswith("atmc_search.tasks.atmc")]
        self.spec, self.data, self.start = spec.fit, data, start
        self.epochs, self.epoch = spec.fit.epochs, 0
        self.terms, self.offset = start.tensors["terms"].clone(), start.tensors["offset"].item()

    def step(self):
        time.sleep(float(os.environ.get("PRESSURE_EPOCH_S", 0)))
        x, y = (torch.from_numpy(part.astype(np.float64)) for part in (self.data["train"].x, self.data["train"].y))
        for _ in range(25):
            slope = x.T @ (x @ self.terms + self.offset - y) / len(y)
            moved, shrunk = self.terms - self.spec.lr * slope, self.spec.lr * self.spec.strength
            if self.spec.penalty == "ridge":
                moved = moved / (1 + shrunk)
            elif self.spec.penalty == "lasso":
                moved = moved.sign() * (moved.abs() - shrunk).clamp(min=0)
            self.terms = moved
        self.epoch += 1
        error, low, high = measured(self.artifact(), self.data["validation"])
        return {
            "error": error,
            "error_low": low,
            "error_high": high,
            "patients": len(self.data["validation"].y),
            "terms": int(self.terms.count_nonzero()),
            "size_bytes": len(self.artifact()),
            "loss": float(((x @ self.terms + self.offset - y) ** 2).mean()),
            **self.start.facts,
        }

    def artifact(self):
        return to_json(self.terms.numpy(), self.offset)

    def state_dict(self):
        return {"terms": self.terms}, {"epoch": self.epoch, "offset": self.offset}

    def load_state_dict(self, tensors, facts):
        self.terms, self.epoch, self.offset = tensors["terms"].clone(), facts["epoch"], facts["offset"]

    @classmethod
    def remeasure(cls, artifact, spec, data, *, split, options, start, device, trust):
        error, low, high = measured(artifact, data[split])
        terms = len(json.loads(artifact)["terms"])
        return Remeasured(
            (Figure("error", error, low, high), Figure("terms", float(terms))),
            (len(data[split].y), f"{split} patients"),
            row={"size_bytes": len(artifact), "error": error, "error_interval": [low, high], "terms": terms},
        )


def to_json(terms, offset):
    kept = {str(place): round(float(value), 3) for place, value in enumerate(terms) if value}
    return json.dumps({"offset": round(offset, 3), "terms": kept}).encode()


def measured(artifact, part):
    """Root mean squared error of what the file says, and its 95 % interval."""
    read = json.loads(artifact)
    predicted = read["offset"] + sum(value * part.x[:, int(place)] for place, value in read["terms"].items())
    squares = (predicted.astype(np.float64) if read["terms"] else np.full(len(part.y), predicted)) - part.y
    squares = squares**2
    half = 1.96 * squares.std() / len(squares) ** 0.5
    ends = squares.mean(), squares.mean() - half, squares.mean() + half
    return tuple(float(max(value, 0) ** 0.5) for value in ends)
'''

STUDY: dict[str, Any] = {
    "name": "pressure",
    "task": "blood_pressure:Pressure",
    "trial": {
        "table": {"rows": 400},
        "fit": {
            "epochs": 3,
            "lr": {"log_uniform": [0.1, 0.5]},
            "penalty": {"choice": ["none", "ridge", "lasso"]},
            "strength": {"log_uniform": [0.1, 3.0]},
        },
    },
    "constraints": {"error": {"max": 8.0}},
    "search": {"trials": 10, "sampler": {"name": "random"}, "seed": 4},
    "resources": {"cpu": 1},
}
EPOCHS = 3

# The program, which tells by its exit code whether anything of ATMC's was imported on the way.
_WATCHED = """
import sys
from atmc_search.cli import main
try:
    main()
except SystemExit as end:
    found = sorted(name for name in sys.modules if name.startswith("atmc_search.tasks.atmc"))
    if found:
        print("imported", found, file=sys.stderr)
    raise SystemExit(99 if found else end.code)
"""


class Place:
    """A folder with the module and the spec, in which the program is run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "runs" / STUDY["name"]
        (folder / "blood_pressure.py").write_text(_MODULE)
        (folder / "pressure.yaml").write_text(yaml.safe_dump(STUDY))

    def popen(self, *words: str, epoch_s: float = 0.0) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PRESSURE_EPOCH_S": str(epoch_s)}
        return subprocess.Popen(
            [sys.executable, "-c", _WATCHED, *words],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *words: str) -> Outcome:
        process = self.popen(*words)
        out, err = process.communicate(timeout=200)
        return Outcome(process.returncode, out, err)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("pressure"))
    sys.path.insert(0, str(made.folder))
    yield made
    sys.path.remove(str(made.folder))


@pytest.fixture(scope="module")
def swept(place: Place) -> tuple[pd.DataFrame, Outcome]:
    """The table as Ctrl-C left it, and how the same command then went on to the end."""
    command = ("run", "pressure.yaml", "--cpus", "2")
    driver = place.popen(*command, epoch_s=0.4)
    try:
        deadline = time.monotonic() + 120
        while RunFolder(place.run).next_report() < 8:
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        driver.send_signal(signal.SIGINT)
        out, err = driver.communicate(timeout=60)
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.communicate()
    assert driver.returncode == 130, err
    assert "continue with the same command: atmc-search run pressure.yaml --cpus 2" in out
    stopped = load_trials(place.run)
    return stopped, place(*command)


@pytest.fixture
def atmc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return program(capsys, monkeypatch)


def test_a_check_shows_the_space_and_the_data(place: Place) -> None:
    said = place("run", "pressure.yaml", "--check")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("pressure: 10 trials, sampler random, fingerprint ")
    assert lines[1] == "table: 200 patients train, 100 validate"
    assert [line.split()[0] for line in lines[2:5]] == ["trial.fit.lr", "trial.fit.penalty", "trial.fit.strength"]
    assert lines[5:] == [
        "penalty none: plain least squares",
        "penalty ridge: squares of the terms",
        "penalty lasso: the terms themselves",
        "objectives size_bytes (min), error (min)",
    ]
    assert not place.run.exists()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("trial.table.rows", 50, "trial.table.rows = 50: too few to fit 24 terms; use at least 100"),
        ("trial.fit.penalty", "rigde", "trial.fit.penalty"),
        ("trial.threat.eps", 0.1, "trial.threat"),
        ("trial.fit.lr", -1.0, "trial.fit.lr"),
        ("constraints", {"size_bytes": {"max": 10}}, "constraints.size_bytes.max = 10: impossible, the least it can"),
        ("objectives", {"robust_accuracy": "max"}, "objectives.robust_accuracy: not a metric of task"),
    ],
)
def test_a_mistake_is_one_line(place: Place, atmc: Run, path: str, value: Any, words: str) -> None:
    said = atmc("run", place.folder / "pressure.yaml", "--check", "--set", f"{path}={json.dumps(value)}")
    assert words in one_line(said)


def test_a_sweep_that_was_stopped_goes_on_to_its_end(place: Place, swept: tuple[pd.DataFrame, Outcome]) -> None:
    stopped, ended = swept
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert "10 trials (10 complete)" in ended.out
    assert "runs/pressure/: continuing; " in ended.err
    assert 0 < len(stopped) < 10
    assert "running" not in set(stopped["state"])
    trials = load_trials(place.run)
    assert trials["state"].tolist() == ["complete"] * 10
    before = trials.set_index("trial").loc[stopped["trial"]].reset_index()
    same = ["trial", "seed", "trial.fit.lr", "trial.fit.penalty", "trial.fit.strength"]
    pd.testing.assert_frame_equal(before[same], stopped[same], check_like=True)
    reports = RunFolder(place.run).read_reports()
    for number, rows in reports[reports["state"].isin(("running", "complete"))].groupby("trial"):
        assert rows["epoch"].tolist() == list(range(EPOCHS + 1)), number  # none lost, none twice


def test_a_table_holds_what_the_task_reports_and_no_value_that_a_trial_does_not_use(
    place: Place, swept: tuple[pd.DataFrame, Outcome]
) -> None:
    trials = load_trials(place.run)
    plain = trials["trial.fit.penalty"] == "none"
    assert set(trials["trial.fit.penalty"]) == {"none", "ridge", "lasso"}
    assert trials.loc[plain, "trial.fit.strength"].isna().all()
    assert trials.loc[~plain, "trial.fit.strength"].between(0.1, 3.0).all()
    assert (trials["start"] == "trained").all()
    for name in ("plain_error", "plain_size_bytes"):
        assert trials[name].nunique() == 1
    assert sorted(path.name for path in (place.run / "starts").iterdir()) == [
        "least-squares-400-of-100-patients.safetensors",
        "least-squares-400.safetensors",
    ]
    # Plain least squares is where it begins, and steps keep it there to rounding.
    assert trials.loc[plain, "size_bytes"].tolist() == [trials["plain_size_bytes"][0]] * plain.sum()
    assert trials.loc[plain, "error"].tolist() == pytest.approx([trials["plain_error"][0]] * plain.sum(), abs=0.01)
    assert trials.loc[trials["trial.fit.penalty"] == "lasso", "terms"].min() < 24
    assert trials["error"].between(trials["error_low"], trials["error_high"]).all()
    for row in trials.itertuples():
        data = (place.run / row.artifact).read_bytes()
        assert (len(data), len(json.loads(data)["terms"])) == (row.size_bytes, row.terms)


def test_its_front_is_shown_chosen_from_and_drawn(place: Place, swept: tuple[pd.DataFrame, Outcome], atmc: Run) -> None:
    trials = load_trials(place.run)
    rows = json.loads(atmc("front", place.run, "--json").out)
    best = front(trials)
    assert [row["trial"] for row in rows] == best["trial"].tolist()
    assert (best["error"] <= 8.0).all()
    assert best["size_bytes"].is_monotonic_increasing
    shown = atmc("front", place.run)
    assert (shown.code, shown.err) == (0, "")
    assert "strength" in shown.out
    decision = choose(trials, best="error", max={"terms": 23})
    assert decision.trial is not None
    said = atmc("choose", place.run, "--best", "error", "--max", "terms=23")
    assert said.code == 0
    assert f"trial {decision.trial['trial']}" in said.out
    within = trials[(trials["terms"] <= 23) & (trials["error"] <= 8.0)]
    assert decision.trial["error"] == within["error"].min()
    assert atmc("choose", place.run, "--best", "error", "--max", "terms=0").code == 1
    picture = place.folder / "front.svg"
    assert atmc("report", place.run, "--out", picture).out == f"wrote {picture}\n"
    drawn = picture.read_text()
    assert "least squares" in drawn
    assert (place.run / "front.png").stat().st_size > 5_000  # the run itself drew it, too


def test_its_columns_describe_themselves_without_its_code(
    place: Place, swept: tuple[pd.DataFrame, Outcome], atmc: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(place.folder)])
    monkeypatch.delitem(sys.modules, "blood_pressure", raising=False)
    said = atmc("columns", place.run)
    assert (said.code, said.err) == (0, "")
    assert "blood_pressure" not in sys.modules
    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert lines["error"].split()[1:3] == ["float64", "mmHg"]
    assert "trial.fit.strength" in lines
    assert not [name for name in lines if "accuracy" in name or name.startswith("dense")]
    assert atmc("front", place.run).code == 0
    assert "blood_pressure" not in sys.modules


def test_measuring_again_gives_the_same_on_validation_and_another_figure_on_test(
    place: Place, swept: tuple[pd.DataFrame, Outcome], atmc: Run
) -> None:
    refused = one_line(atmc("verify", place.run))
    assert "would import that code and run it; if you trust the run folder, add --trust" in refused
    said = place("verify", str(place.run), "--trust", "--split", "validation", "--json")
    assert said.code == 0, said.err
    trials = load_trials(place.run).set_index("trial")
    again = json.loads(said.out)
    assert [row["trial"] for row in again] == front(load_trials(place.run))["trial"].tolist()
    for row in again:
        for name in ("error", "terms", "size_bytes"):
            assert row[name] == row[f"recorded_{name}"] == trials[name][row["trial"]]
        assert row["error_interval"] == trials.loc[row["trial"], ["error_low", "error_high"]].tolist()
    tested = json.loads(atmc("verify", place.run, "--trust", "--json").out)
    for row in tested:
        assert row["error"] != row["recorded_error"] == trials["error"][row["trial"]]
        assert 3 < row["error"] < 10
    text = atmc("verify", place.run, "--trust").out
    assert "n = 100 test patients; recorded: by the sweep, on validation" in text
    assert "recorded error" in text


def test_what_its_task_does_not_offer_is_one_line(place: Place, swept: tuple[pd.DataFrame, Outcome], atmc: Run) -> None:
    said = one_line(atmc("curves", place.run, "--trust"))
    assert "Pressure: its artifacts have no robustness curves" in said
    assert "--steps: has no meaning for artifacts of Pressure, which take only --split; remove it" in one_line(
        atmc("verify", place.run, "--trust", "--steps", 3)
    )
    assert "--trial 99: no such trial; there are 0 to 9" in one_line(atmc("verify", place.run, "--trial", 99))


def test_one_trial_runs_without_ray(place: Place) -> None:
    said = place("trial", "pressure.yaml", "--set", "trial.fit.penalty=lasso")
    assert said.code == 0, said.err
    (out,) = place.folder.glob("*-trial.artifact")
    assert set(json.loads(out.read_text())) == {"offset", "terms"}
    assert "least squares: plain_error " in said.err


def test_its_space_is_its_own(place: Place) -> None:
    space = TrialSpace.of(load_study(place.folder / "pressure.yaml"))
    assert list(space.active({"trial.fit.penalty": "none"})) == ["trial.fit.lr", "trial.fit.penalty"]
    for config in ({}, {"trial.fit.strength": None}, {"trial.fit.strength": 2.5}):  # not sampled, read back, an extreme
        spec = space.fill({"trial.fit.lr": 0.2, "trial.fit.penalty": "none", **config})
        assert spec.fit.strength == 0.1  # its default
    assert space.deciding == ("trial.fit.penalty",)
    assert list(space.presets) == ["none", "ridge", "lasso"]
    assert space.study.objectives == {"size_bytes": "min", "error": "min"}
    with pytest.raises(SpecError):
        space.fill({"trial.fit.lr": 0.2, "trial.fit.penalty": "atmc", "trial.fit.strength": 1.0})
