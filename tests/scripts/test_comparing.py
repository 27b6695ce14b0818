"""`scripts/compare_methods.py`: refuses what is unequal, trains what is missing, tests once, and adds up over seeds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from compare_methods import main
from comparing.gains import gains
from comparing.gains_figure import _figure
from comparing.plan import Comparison, jobs, load_comparison
from comparing.tables import half_width, markdown, summary

from atmc_search.errors import SpecError
from atmc_search.spec.paths import set_at

TINY: dict[str, Any] = {
    "name": "tiny",
    "epochs": 4,
    "seeds": [0, 1],
    "trial": {
        "data": {"name": "digits", "train_size": 64, "validation_size": 50, "test_size": 50},
        "model": {"name": "small_cnn", "width": 2},
        "threat": {"norm": "linf", "eps": 0.05},
        "dense": {"epochs": 3, "lr": 0.1, "batch_size": 16, "attack": {"name": "fgsm"}},
        "train": {"epochs": 1, "lr": 0.02, "batch_size": 16, "attack": {"name": "fgsm"}},
        "compress": {"factors": "none", "keep": 0.3, "bits": 3},
        "evaluate": {"attack": {"name": "fgsm"}, "masking_images": 0},
    },
    "arms": {
        "atmc": {"meaning": "the paper's", "settings": {"method": "atmc"}, "points": [{"compress.keep": 0.3}]},
        "al0": {"meaning": "no codebook", "settings": {"method": "al0"}, "points": [{}, {"compress.keep": 0.9}]},
    },
    "test": {"images": 40, "attacks": {"pgd": {"name": "pgd", "steps": 2}}},
}


def tiny(**changes: Any) -> Comparison:
    document = deepcopy(TINY)
    for path, value in changes.items():
        set_at(document, path.replace("__", "."), value)
    return Comparison.model_validate(document)


COMPARISONS = sorted((Path(__file__).parents[2] / "search_spaces" / "comparisons").glob("*.yaml"))


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_the_comparisons_that_come_along_are_fair(path: Path) -> None:
    comparison = load_comparison(path)
    found = jobs(comparison)
    assert len(found) == len(comparison.seeds) * sum(len(arm.points) for arm in comparison.arms.values())
    assert len(comparison.seeds) >= 3
    assert len({job.key for job in found}) == len(found)
    steps = {(job.spec.dense.epochs + job.spec.train.epochs, job.spec.train.batch_size) for job in found}
    assert len(steps) == 1


def test_seeds_reach_the_start_and_the_trial_and_methods_fix_what_they_fix() -> None:
    first, *_, last = jobs(tiny())
    assert (first.arm, first.seed, first.spec.seed, first.spec.dense.seed) == ("atmc", 0, 0, 0)
    assert (last.arm, last.point, last.spec.seed, last.spec.dense.seed) == ("al0", 1, 1, 1)
    assert (first.spec.compress.factors, last.spec.compress.bits, last.spec.compress.keep) == ("uvc", 32, 0.9)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("arms.al0.settings", {"method": "al0", "train.epochs": 2}, r"al0, point 0: .* = 5, not epochs: 4; make them"),
        ("arms.al0.settings", {"method": "al0", "train.batch_size": 8}, r"batch_size = 8, not 16 as in arm atmc"),
        ("arms.al0.settings", {"method": "al0", "dense.batch_size": 8}, r"dense.batch_size = 8, not 16"),
        ("arms.al0.settings", {"data.train_size": 50}, r"al0, point 0: data = "),
        ("arms.al0.settings", {"threat.eps": 0.1}, r"al0, point 0: threat = "),
        ("arms.al0.points", [{"compress.keep": {"choice": [0.1, 0.2]}}], r"compress.keep is a distribution"),
    ],
)
def test_what_is_not_equal_is_refused(path: str, value: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        jobs(tiny(**{path.replace(".", "__"): value}))


def test_intervals_are_student_s() -> None:
    """Of 1, 2, 3: s = 1, t(0.975, 2) = 4.3027, so 4.3027 / sqrt(3)."""
    assert half_width(np.array([1.0, 2.0, 3.0])) == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert np.isnan(half_width(np.array([1.0])))


def test_a_failed_trial_is_told_and_left_out_of_the_means() -> None:
    rows = [("atmc", 0, seed, None, 100.0 + 10 * seed, 50.0, 0.5) for seed in (0, 1)]
    rows.append(("atmc", 0, 2, "diverged", None, None, None))
    names = ["arm", "point", "seed", "failed", "size_bytes", "paper_bytes", "test_pgd"]
    trials = pd.DataFrame(rows, columns=names)
    (row,) = summary(trials, ["size_bytes", "test_pgd"]).to_dict("records")
    assert (row["n"], row["size_bytes"], row["size_bytes_median"], row["test_pgd_half"]) == (2, 105.0, 105.0, 0.0)
    table = markdown(tiny(), trials, ["test_pgd"])
    assert "| atmc | keep 0.3 | 2 | 105 ± 64 | 50 | 0.5000 ± 0.0000 (0.5000) |" in table
    assert "atmc, point 0, seed 2 failed: diverged" in table


def test_a_comparison_from_plan_to_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    words = ["compare_methods.py", str(tmp_path / "tiny.yaml"), "--runs", str(tmp_path / "runs"), "--workers", "0"]

    def run(*more: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [*words, *more])
        return main(), capsys.readouterr().out

    code, said = run("--seeds", "1")
    assert (code, said.count("(validation)"), "test images" in said) == (0, 3, False)
    code, said = run()
    assert (code, said.count("(validation)"), said.count("on test images")) == (0, 3, 6)  # seed 1 is there already
    folder = tmp_path / "runs" / "tiny"
    trials = pd.read_parquet(folder / "comparison.parquet")
    assert len(trials) == 6
    for name in trials:
        assert trials[name].notna().all() or name == "failed", name
    assert (trials["test_pgd"] <= trials["test_clean"]).all()
    assert (folder / "comparison.md").read_text().strip() in said
    assert (folder / "comparison.png").stat().st_size > 10_000
    sizes = [path.stat().st_size for path in sorted((folder / "trials").glob("*.atmc"))]
    assert sorted(sizes) == sorted(trials["size_bytes"])
    code, said = run()
    assert (code, said.count("(validation)"), said.count("on test images")) == (0, 0, 0)


def test_a_mistake_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "bad.yaml").write_text("name: x\nepochs: 0\n")
    twice = tmp_path / "twice.yaml"
    twice.write_text(yaml.safe_dump(TINY | {"seeds": [0, 1, 0]}))
    for words in (
        ["nowhere.yaml"],
        [str(twice)],
        [str(tmp_path / "bad.yaml")],
        [str(COMPARISONS[0]), "--only", "nobody"],
    ):
        monkeypatch.setattr(sys, "argv", ["compare_methods.py", *words])
        assert main() == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert told.count("\n") == 1


def test_ctrl_c_is_one_line_and_what_was_made_stays(tmp_path: Path) -> None:
    document = deepcopy(TINY) | {"epochs": 10_000}
    for arm in document["arms"].values():
        arm["settings"] |= {"dense.epochs": 1, "train.epochs": 9_999}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(document))
    script = Path(__file__).parents[2] / "scripts" / "compare_methods.py"
    words = [sys.executable, str(script), "tiny.yaml", "--workers", "1"]
    with subprocess.Popen(
        words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert "dense start" in run.stdout.readline()
        assert "dense start" in run.stdout.readline()
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert (run.returncode, said) == (130, "\nstopped; the same command goes on from the last whole trial\n")
    assert len(list((tmp_path / "runs" / "tiny" / "starts").iterdir())) == 2


def test_each_attack_has_images_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    document = deepcopy(TINY)
    document["arms"] = {"al0": document["arms"]["al0"]}
    document["test"] = {
        "images": {"pgd": 12},
        "attacks": {"pgd": {"name": "pgd", "steps": 2}, "none": {"name": "none"}},
    }
    spec = tmp_path / "tiny.yaml"
    spec.write_text(yaml.safe_dump(document))
    argv = ["compare_methods.py", str(spec), "--runs", str(tmp_path / "runs"), "--workers", "0"]
    monkeypatch.setattr(sys, "argv", argv)
    assert main() == 0
    trials = pd.read_parquet(tmp_path / "runs" / "tiny" / "comparison.parquet")
    assert (trials["test_pgd_images"] == 12).all()
    assert (trials[["test_none_images", "test_images"]] == 50).all(axis=None)
    assert trials["test_clean"].equals(trials["test_none"])  # of all 50, not of PGD's 12
    document["test"]["images"] = {"apgd": 12}
    spec.write_text(yaml.safe_dump(document))
    assert main() == 2
    assert "images.apgd names no attack; there are none, pgd" in capsys.readouterr().err


def test_gains_are_against_the_reference_at_equal_bytes() -> None:
    """The reference goes from 0.5 at 100 bytes to 0.7 at 10,000: 0.6 at 1,000, the middle of the logarithms."""
    rows = [
        ("recipe", 0, None, 100.0, 0.5),
        ("recipe", 0, None, 10_000.0, 0.7),
        ("smaller", 0, None, 1_000.0, 0.65),
        ("beyond", 0, None, 50.0, 0.45),
        ("smaller", 1, None, 1_000.0, 0.65),
        ("smaller", 0, "diverged", None, None),
    ]
    found = gains(pd.DataFrame(rows, columns=["arm", "seed", "failed", "size_bytes", "robust"]), "recipe", ["robust"])
    np.testing.assert_allclose(found["gain_robust"], [0, 0, 0.05, np.nan, np.nan, np.nan], atol=1e-12)


def test_the_figure_of_gains_has_a_line_an_arm_and_says_what_is_beyond_its_edge() -> None:
    comparison = tiny(reference="atmc", arms__al0__points=[{}, {"compress.keep": 0.9}, {"compress.keep": 0.5}])
    rows = [("atmc", 0, 0.0, 0.0), ("al0", 0, 0.02, 0.03), ("al0", 1, -0.5, -0.7), ("al0", 2, np.nan, np.nan)]
    pairs = [(arm, point, gain) for arm, point, *both in rows for gain in both]
    trials = pd.DataFrame(pairs, columns=["arm", "point", "gain_robust"])
    trials = trials.assign(seed=[0, 1] * 4, failed=None, size_bytes=100.0)
    figure = _figure(comparison, trials, [("robust", "robust, validation")])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["al0", "al0 (keep 0.9)", "al0 (keep 0.5)"]
    assert [text.get_text() for text in axes.texts] == ["-60 ± 127", "other sizes"]
    (bars,) = [bar for bar in axes.containers if len(bar.lines[0].get_xdata())]
    np.testing.assert_allclose(bars.lines[0].get_xydata(), [[2.5, 0]])
    (interval,) = bars.lines[2][0].get_segments()
    np.testing.assert_allclose(interval[:, 0], 2.5 + 100 * half_width(np.array([0.02, 0.03])) * np.array([-1, 1]))


def test_without_test_images_all_is_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    document = deepcopy(TINY) | {"reference": "al0", "seeds": [0]}
    del document["test"]
    spec = tmp_path / "tiny.yaml"
    spec.write_text(yaml.safe_dump(document))
    monkeypatch.setattr(sys, "argv", ["x", str(spec), "--runs", str(tmp_path / "runs"), "--workers", "0"])
    assert main() == 0
    said = capsys.readouterr().out
    assert "on test images" not in said
    assert "| arm | point | n | bytes | paper's count | clean | robust | gain clean | gain robust |" in said
    assert (tmp_path / "runs" / "tiny" / "comparison.png").stat().st_size > 10_000
    own = [line for line in said.splitlines() if line.startswith("| al0 |")]
    assert len(own) == 2
    assert all(line.endswith(" | +0.0000 | +0.0000 |") for line in own)
    document["reference"] = "al1"
    spec.write_text(yaml.safe_dump(document))
    assert main() == 2
    assert "reference al1 is no arm; there are al0, atmc" in capsys.readouterr().err


def test_a_start_that_diverges_fails_only_its_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    document = deepcopy(TINY) | {"seeds": [0]}
    del document["test"]
    document["arms"]["al0"] = {"meaning": "hot", "settings": {"method": "al0", "dense.lr": 1e30}, "points": [{}]}
    spec = tmp_path / "tiny.yaml"
    spec.write_text(yaml.safe_dump(document))
    monkeypatch.setattr(sys, "argv", ["x", str(spec), "--runs", str(tmp_path / "runs"), "--workers", "0"])
    for again in (False, True):
        assert main() == 0
        said = capsys.readouterr().out
        assert "al0, point 0, seed 0 failed: its dense start: diverged: dense loss is nan in epoch" in said
        assert said.count("| atmc |") == 1
        assert said.count(" gone\n") == (0 if again else 4)  # two starts, two trials
