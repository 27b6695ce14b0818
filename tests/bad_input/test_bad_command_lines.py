"""Command lines that ask for what there is not: each is refused in one line, before anything is measured or written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from folders import artifact, run_folder
from refusals import DOCUMENT, Case, case, refused, tree
from shell import Outcome, Run, one_line


def prepared(folder: Path) -> None:
    run_folder(folder)
    (folder / "spec.yaml").write_text(yaml.safe_dump(DOCUMENT))
    (folder / "model.atmc").write_bytes(artifact())
    (folder / "bare.atmc").write_bytes(artifact(threat=None))
    (folder / "file").touch()


CASES = [
    # words
    case("no-such-command", "sweep spec.yaml", "sweep", "no such command", "see atmc-search --help"),
    case("no-such-option", "run spec.yaml --trials 3", "--trials", "no such option", "see atmc-search run --help"),
    case("option-with-a-typo", "run spec.yaml --chek", "--chek", "no such option", "did you mean.*--check"),
    case("nothing-to-run", "run", "SPEC", "missing argument", "see atmc-search run --help"),
    case("one-too-many", "front run run", "run", "unexpected extra argument", "see atmc-search front --help"),
    case("an-option-without-value", "run spec.yaml --cpus", "--cpus", "requires an argument", "--help"),
    case("no-such-word", "settings momentun", "'momentun'", "no setting", "did you mean 'momentum'"),
    # --set
    case("set-without-value", "run spec.yaml --set search.trials", "'search.trials'", "needs PATH=VALUE", "write e.g."),
    case("set-without-path", "run spec.yaml --set =3", "'=3'", "needs PATH=VALUE", "write e.g."),
    case("set-nothing", ["run", "spec.yaml", "--set", ""], "''", "needs PATH=VALUE", "write e.g."),
    case("set-half-a-list", "run spec.yaml --set search.trials=[1", "search.trials", "not readable as YAML", "mend"),
    case("set-an-object", "run spec.yaml --set name=!!python/name:os.system", "name", "could not determine", "mend"),
    case("set-through-a-word", "run spec.yaml --set name.x=3", "name.x", "does not lead into a section", "write e.g."),
    case("set-a-dot-too-many", "run spec.yaml --set trial..model=3", "trial..model", "a dot too many", "write e.g."),
    case("set-a-dot", "run spec.yaml --set .=3", ".", "a dot too many", "write e.g."),
    case("set-a-near-name", "run spec.yaml --set trial.compres.bits=4", "compres", "unknown key", "did you mean 'comp"),
    case("set-a-nan", "run spec.yaml --set trial.threat.eps=.nan", "nan", "finite", "give a number"),
    case("set-a-word", "run spec.yaml --set search.trials=lots", "'lots'", "valid integer", "write a whole number"),
    case("set-a-bomb", ["run", "spec.yaml", "--set", "name=" + "[" * 5000], "64 levels", "not readable", "mend"),
    # where to run, where to write
    case("no-cores", "run spec.yaml --cpus 0", "--cpus", "x>=1", "see atmc-search run --help"),
    case("half-a-core", "run spec.yaml --cpus 1.5", "'1.5'", "not a valid integer", "--help"),
    case("more-cores-than-there-are", "run spec.yaml --set resources.cpu=1e9 --runs file", "file", "cannot", "another"),
    case("no-cluster-there", "run spec.yaml --address 127.0.0.1:1", "127.0.0.1:1", "does not answer", "check the address"),
    case("no-client-server-there", "run spec.yaml --address ray://127.0.0.1:1", "ray://127", "not answer", "check the"),
    case("no-address", "run spec.yaml --address here", "here", "does not answer", "check the address"),
    case("an-unset-spec", ["run", ""], "''", "is no path", "is a variable unset"),
    case("an-unset-run", ["front", ""], "''", "is no path", "is a variable unset"),
    case("an-unset-out", ["report", "run", "--out", ""], "''", "is no path", "is a variable unset"),
    case("runs-in-a-file", "run spec.yaml --runs file", "file", "cannot be written", "choose another --runs"),
    case("runs-nowhere-to-write", "run spec.yaml --runs /proc/runs", "/proc/runs", "cannot be written", "another"),
    case("no-such-device", "trial spec.yaml --device abacus", "abacus", "torch cannot use it", "use cpu"),
    case("a-gpu-too-many", "trial spec.yaml --device cuda:99", "cuda:99", "torch cannot use it", "use cpu"),
    case("a-device-without-memory", "trial spec.yaml --device meta", "meta", "torch cannot use it", "use cpu"),
    case("no-device", ["trial", "spec.yaml", "--device", ""], "--device", "torch cannot use it", "use cpu"),
    case("out-in-no-folder", "trial spec.yaml --out no/such/x.atmc", "no/such/x.atmc", "cannot be written", "another"),
    case("out-is-a-folder", "trial spec.yaml --out run", "run", "cannot be written", "choose another"),
    case("out-below-a-file", "trial spec.yaml --out file/x", "file/x", "cannot be written", "choose another"),
    case("out-is-nothing", ["trial", "spec.yaml", "--out", ""], "--out", "is no path", "is a variable unset"),
    # looking
    case("two-forms", "front run --json=1", "--json", "does not take a value", "--help"),
    case("choose-by-nothing", "choose run", "--best", "missing option", "--help"),
    case("choose-by-an-empty-word", ["choose", "run", "--best", ""], "''", "not a metric", "known|did you mean"),
    case("choose-by-a-typo", "choose run --best robust_acuracy", "robust_acuracy", "not a metric", "did you mean"),
    case("choose-the-median", "choose run --best median:size_bytes", "'median:size_bytes'", "direction", "write max:"),
    case("choose-by-a-word", "choose run --best state", "'state'", "not a metric", "known|did you mean"),
    case("choose-without-direction", "choose run --best epoch", "'epoch'", "direction is unknown", "write max:epoch"),
    case("a-bound-without-number", "choose run --best size_bytes --max size_bytes", "'size_bytes'", "METRIC=NUMBER",
         "write e.g."),
    case("a-bound-in-words", "choose run --best size_bytes --max size_bytes=1kB", "'size_bytes=1kB'", "METRIC=NUMBER",
         "write e.g."),
    case("a-bound-twice", "choose run --best nnz --max nnz=1 --max nnz=5", "--max nnz=5", "has a bound", "give one of"),
    case("bounds-that-cross", "choose run --best min:nnz --max nnz=1 --min nnz=5", "min nnz = 5", "no value", "change"),
    case("a-bound-of-nan", "choose run --best size_bytes --max size_bytes=nan", "nan", "finite", "give one or drop"),
    case("a-bound-of-inf", "choose run --best size_bytes --max size_bytes=inf", "inf", "finite", "give one or drop"),
    case("a-bound-on-nothing", "choose run --best size_bytes --min =3", "''", "not a metric|no such", "known|did you"),
    case("a-picture-of-no-kind", "report run --out front.bmp", "front.bmp", r"\.png or \.svg", "rename it"),
    case("a-picture-nowhere", "report run --out no/front.png", "no/front.png", "cannot be written", "exists"),
    case("a-picture-that-is-a-folder", "report run --out run/x.png", "run/x.png", "cannot be written", "give a path",
         make=lambda folder: (prepared(folder), (folder / "run" / "x.png").mkdir())),
    # measuring
    case("no-such-trial", "verify run --trial 9", "--trial 9", "no such trial", "there are 0 to 2"),
    case("trial-minus-one", "verify run --trial -1", "--trial -1", "no such trial", "there are 0 to 2"),
    case("trial-of-30-digits", ["verify", "run", "--trial", "9" * 30], "9" * 30, "no such trial", "there are 0 to 2"),
    case("trial-in-words", "verify run --trial two", "'two'", "not a valid integer", "--help"),
    case("trial-that-failed", "verify run --trial 2", "trial 2", "the trial failed: the loss is nan", "name a trial"),
    case("no-such-split", "verify run --split train", "'train'", "is not one of", "'test', 'validation'"),
    case("eps-nan", "verify run --eps nan", "nan", "finite", "give a number"),
    case("eps-inf", "verify run --eps inf", "inf", "finite", "give a number"),
    case("eps-below-0", "verify run --eps -1", "-1", "greater than or equal to 0", "raise it"),
    case("eps-of-bytes", "verify run --eps 8", "eps 8", r"in \[0, 1\]", "for 8/255 write 0.03137"),
    case("eps-as-a-fraction", "verify run --eps 8/255", "'8/255'", "not a valid float", "--help"),
    case("no-steps", "verify run --steps 0", "--steps", "x>=1", "--help"),
    case("no-such-attack", "verify run --attack pdg", "'pdg'", "unknown name", "did you mean 'pgd'"),
    case("half-an-attack", ["verify", "run", "--attack", "{name: pgd"], "--attack", "not readable as YAML", "mend"),
    case("an-attack-without-name", ["verify", "run", "--attack", "{steps: 3}"], "name", "missing", "must be given"),
    case("an-attack-of-numbers", ["verify", "run", "--attack", "{name: 3}"], "3", "valid string", "quote it"),
    case("an-attack-with-a-typo", ["verify", "run", "--attack", "{name: pgd, stps: 3}"], "stps", "unknown key",
         "did you mean 'steps'"),
    case("an-attack-in-a-list", ["verify", "run", "--attack", "[pgd]"], "'[pgd]'", "unknown name", "known"),
    case("steps-of-fgsm", "verify run --attack fgsm --steps 3", "--steps 3", "has no steps", "leave --steps out"),
    case("an-attack-that-is-none", "verify run --attack math:pi", "math:pi", "is no attack", "name a subclass"),
    case("an-attack-not-installed", "verify run --attack no.where:A", "no.where:A", "importing", "installed"),
    case("radii-in-words", "curves run --eps small,large", "'small,large'", "needs numbers", "write e.g."),
    case("radii-with-a-gap", "curves run --eps 0,,1", "'0,,1'", "needs numbers", "write e.g."),
    case("no-radii", ["curves", "run", "--eps", ""], "''", "needs numbers", "write e.g."),
    case("a-radius-below-0", "curves run --eps=-0.1", "-0.1", "greater than or equal to 0", "raise it"),
    case("a-radius-of-nan", "curves run --eps nan", "nan", "finite", "give a number"),
    case("half-a-step", "curves run --steps 1.5", "'1.5'", "needs whole numbers", "write e.g."),
    case("steps-below-1", "curves run --steps 0", "0", "greater than or equal to 1", "raise it"),
    case("steps-of-an-attack-without", "curves run --attack fgsm --steps 3", "steps = 3", "takes no number of steps", "leave steps out"),
    case("a-curve-of-no-kind", "curves run --out x.pdf", "x.pdf", r"\.png or \.svg", "rename it"),
    # artifacts
    case("no-data", "evaluate model.atmc", "--data", "missing option", "--help"),
    case("no-such-data", "evaluate model.atmc --data digit", "'digit'", "unknown name", "did you mean 'digits'"),
    case("data-with-a-root", "evaluate model.atmc --data digits --root x", "'x'", "come with", "leave|remove"),
    case("eps-for-another-norm", "evaluate model.atmc --data digits --norm l2", "l2", "meant for 'linf'", "give --eps"),
    case("eps-of-bytes-for-a-file", "evaluate model.atmc --data digits --eps 8", "eps 8", r"in \[0, 1\]", "for 8/255"),
    case("no-eps-at-all", "evaluate bare.atmc --data digits", "bare.atmc", "no threat model", "give --eps"),
    case("no-such-format", "export model.atmc --to tflite --out x", "'tflite'", "is not one of", "'onnx'"),
    case("export-without-place", "export model.atmc --to onnx", "--out", "missing option", "--help"),
    case("export-into-a-folder", "export model.atmc --to state_dict --out run", "run", "cannot be written", "choose"),
    case("export-to-a-full-disk", "export model.atmc --to state_dict --out /dev/full", "/dev/full", "no space left",
         "choose another"),
    case("repack-nowhere", "repack model.atmc --out no/x", "no/x", "cannot be written", "choose another"),
    case("an-artifact-without-end", "inspect /dev/zero", "/dev/zero", "no file but a device", "give the path of an .atmc"),
    case("to-evaluate-without-end", "evaluate /dev/zero --data digits", "/dev/zero", "no file but a device",
         "give the path of an .atmc"),
]  # fmt: skip


@pytest.mark.parametrize("bad", CASES)
def test_a_bad_command_line_is_refused(atmc: Run, tmp_path: Path, bad: Case) -> None:
    if bad.make is Case.make:
        prepared(tmp_path)
    refused(atmc, tmp_path, bad)


@pytest.mark.parametrize("words", [["run", "\udcff.yaml"], ["front", "a\nb\x1b[2J"]], ids=["no-text", "escapes"])
def test_the_program_itself_refuses_in_one_line(tmp_path: Path, words: list[str]) -> None:
    before = tree(tmp_path)
    command = [sys.executable, "-m", "atmc_search", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert one_line(Outcome(done.returncode, done.stdout, done.stderr))[:-1].isprintable()
    assert tree(tmp_path) == before


def test_a_full_disk_under_the_output_is_one_line(tmp_path: Path) -> None:
    run_folder(tmp_path)
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "atmc_search", "front", "run", "--json"]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert "No space left on device" in one_line(Outcome(done.returncode, "", done.stderr))
