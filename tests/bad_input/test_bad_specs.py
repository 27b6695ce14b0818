"""Specs that break a rule, or are no specs: each is refused in one line before anything is written or run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from refusals import DOCUMENT, GONE, Case, case, document, refused
from shell import Run

from atmc_search.errors import printable

NAN, INF = float("nan"), float("inf")
WORDS = "run spec.yaml --check"


def written(content: str | bytes, name: str = "spec.yaml") -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def bad(path: str, value: object, shown: str, rule: str, remedy: str, *more: tuple[str, object]) -> Any:
    """The valid spec with this value at this path; the message names the path too."""
    text = yaml.safe_dump(document((path, value), *more), sort_keys=False)
    name = f"{path}={'gone' if value is GONE else str(value)[:30]!r}"
    return case(name, WORDS, shown, f"{re.escape(printable(path))}.*({rule})", remedy, make=written(text))


def torn(name: str, text: str | bytes, shown: str, rule: str, remedy: str) -> Any:
    """A file that is no spec, as it stands."""
    return case(name, WORDS, shown, rule, remedy, make=written(text))


GOOD = yaml.safe_dump(DOCUMENT, sort_keys=False)

VALUES = [
    # numbers
    bad("trial.train.lr", NAN, "nan", "finite", "give a number|leave it out"),
    bad("trial.train.lr", INF, "inf", "finite", "give a number|leave it out"),
    bad("trial.train.lr", 0, "0", "greater than 0", "raise it"),
    bad("trial.train.lr", -0.1, "-0.1", "greater than 0", "raise it"),
    bad("trial.train.lr", "0.1", "'0.1'", "valid number", "without quotes"),
    bad("trial.train.lr", "fast", "'fast'", "valid number", "write a number"),
    bad("trial.train.lr", True, "true", "valid number", "write a number"),
    bad("trial.train.lr", None, "null", "valid number", "write a number"),
    bad("trial.train.lr", [0.1, 0.2], "[0.1, 0.2]", "valid number", r"\{choice: \[0.1, 0.2\]\}"),
    bad("trial.train.lr", {"loguniform": [0.01, 0.1]}, "loguniform", "valid number", "choice, uniform, log_uniform"),
    bad("trial.train.momentum", 1, "1", "less than 1", "lower it"),
    bad("trial.train.epochs", 1e3, "1000.0", "valid integer", "write 1000"),
    bad("trial.train.epochs", 2.5, "2.5", "valid integer", "write a whole number"),
    bad("trial.train.epochs", "9", "'9'", "valid integer", "without quotes"),
    bad("trial.train.epochs", 0, "0", "greater than or equal to 1", "raise it"),
    bad("trial.train.epochs", 10**30, "1" + "0" * 30, "64 bits", "use a smaller number"),
    bad("trial.data.train_size", -5, "-5", "greater than or equal to 1", "raise it"),
    bad("trial.data.seed", -1, "-1", "greater than or equal to 0", "raise it"),
    bad("trial.seed", 2**70, str(2**70), "64 bits", "use a smaller number"),
    bad("trial.train.nesterov", "yes", "'yes'", "valid boolean", "write true or false"),
    bad("trial.train.nesterov", 1, "1", "valid boolean", "write true or false"),
    # the threat
    bad("trial.threat.eps", "8/255", "'8/255'", "valid number", "write 0.03137"),
    bad("trial.threat.eps", -0.1, "-0.1", "greater than or equal to 0", "raise it"),
    bad("trial.threat", {"norm": "linf", "eps": 8}, "8", r"in \[0, 1\]", "for 8/255 write 0.03137"),
    bad("trial.threat.eps", "8%", "'8%'", "valid number", "write a number"),
    bad("trial.threat.norm", "l1", "'l1'", "'linf' or 'l2'", "choose one"),
    bad("trial.threat.norm", "Linf", "'Linf'", "'linf' or 'l2'", "did you mean 'linf'"),
    bad("trial.threat.eps", GONE, "eps", "missing", "must be given"),
    # distributions
    bad("trial.train.lr", {"log_uniform": [0, 0.1]}, "[0, 0.1]", "above 0 on a log scale", "use uniform or raise it"),
    bad("trial.train.lr", {"uniform": [0.2, 0.1]}, "[0.2, 0.1]", "range is empty", r"did you mean \[0.1, 0.2\]"),
    bad("trial.train.lr", {"uniform": [0.1]}, "[0.1]", r"must be \[low, high\]", "give two numbers"),
    bad("trial.train.lr", {"uniform": 0.1}, "0.1", "must be a list", r"write \[a, b\]"),
    bad("trial.train.lr", {"uniform": [0.1, NAN]}, "nan", "finite", "give a number"),
    bad("trial.train.lr", {"uniform": ["a", "b"]}, "'a'", "finite numbers", "give two numbers"),
    bad("trial.train.epochs", {"int_uniform": [1, 2.5]}, "2.5", "whole numbers", "round it"),
    bad("trial.train.epochs", {"uniform": [1, 4]}, "2.5", "valid integer", "write a whole number"),
    bad("trial.compress.bits", {"choice": []}, "[]", "nothing to choose", "list at least one"),
    bad("trial.compress.bits", {"choice": [4, 4]}, "[4, 4]", "stands twice", "list each once"),
    bad("trial.compress.bits", {"choice": [4, 12]}, "12", "1 to 8, or 32", "choose one"),
    bad("trial.compress.bits", {"choice": [4, "8"]}, "'8'", "valid integer", "without quotes"),
    bad("trial.compress.factors", {"choice": ["none", "uvx"]}, "'uvx'", "'none', 'uvc'", "did you mean 'uvc'"),
    bad("trial.compress.factors", {"choice": [{"uniform": [0, 1]}]}, "uniform", "no scalar", "a choice is between"),
    bad("trial.model", {"choice": [{"name": "mlp"}, {"name": "lenet"}]}, "mlp", "no scalar", "a choice is between"),
    bad("trial.model.hidden", {"choice": [8, 16]}, "8", "list of positive", "write e.g."),
    # unknown keys, and a name nearby
    bad("trails", 4, "trails", "unknown key", "did you mean 'trial'"),
    bad("trial.treat", {}, "treat", "unknown key", "did you mean 'threat'"),
    bad("trial.compress.kep", 0.1, "kep", "unknown key", "did you mean 'keep'"),
    bad("trial.train.attack.stpes", 3, "stpes", "unknown key", "did you mean 'steps'"),
    bad("trial.model.hiden", [8], "hiden", "unknown key", "did you mean 'hidden'"),
    bad("search.sampler", {"nmae": "tpe"}, "nmae", "unknown key", "did you mean 'name'"),
    bad("resources.gpus", 1, "gpus", "unknown key", "did you mean 'gpu'"),
    bad("trial.\x1b[31mred", 1, "\\x1b[31mred", "unknown key", "known: "),
    bad("trial.a\u202eb", 1, "\\u202e", "unknown key", "known: "),
    # names
    bad("name", "../../etc", "'../../etc'", "names a folder", "use letters"),
    bad("name", "..", "'..'", "names a folder", "use letters"),
    bad("name", "/tmp/x", "'/tmp/x'", "names a folder", "use letters"),
    bad("name", "a\nb", "'a\\nb'", "names a folder", "use letters"),
    bad("name", "<script>alert(1)</script>", "<script>", "names a folder", "use letters"),
    bad("name", "$x^2$", "'$x^2$'", "names a folder", "use letters"),
    bad("name", "x" * 300, "xxx", "names a folder", "at most 100"),
    bad("name", "", "''", "names a folder", "use letters"),
    bad("name", True, "true", "valid string", "quote it"),
    bad("name", None, "null", "valid string", "write a word"),
    bad("name", 7, "7", "valid string", "quote it"),
    # things by name
    bad("task", "atmcc", "'atmcc'", "unknown name", "did you mean 'atmc'"),
    bad("task", "nowhere.at.all:Task", "'nowhere.at.all:Task'", "importing .* failed", "installed or on PYTHONPATH"),
    bad("task", "json:nothing", "'json:nothing'", "has no attribute 'nothing'", "check the spelling"),
    bad("task", "json:loads", "'json:loads'", "is no task", "name a subclass"),
    bad("task", "..:x", "'..:x'", "importing", "check that it is"),
    bad("task", ":", "':'", "importing", "check that it is"),
    bad("trial.data.name", "digit", "'digit'", "unknown name", "did you mean 'digits'"),
    bad("trial.data.name", "json:loads", "json:loads", "loader (failed|returned)", "mend it|return"),
    bad("trial.model.name", "resnet", "'resnet'", "unknown name", "did you mean 'resnet"),
    bad("trial.model.name", "nowhere:net", "nowhere:net", "importing .* failed", "check that it is installed"),
    bad("trial.model", "mlp", "'mlp'", "must be a mapping", r"write \{"),
    bad("trial.model", {"name": "mlp", "hidden": "many"}, "'many'", "list of positive", "write e.g."),
    bad("trial.model", {"name": "small_cnn", "width": 0}, "0", "positive integer", "write e.g. width: 16"),
    bad("trial.model", {"name": "small_cnn", "width": 10**12}, "width", "failed", "check its settings"),
    bad("trial.model", {"name": "lenet", "classes": 10}, "10", "follows from the dataset", "remove it"),
    bad("trial.train.attack", "pgd", "'pgd'", "must be a mapping", r"write \{"),
    bad("trial.train.attack", {"name": "pdg"}, "'pdg'", "unknown name", "did you mean 'pgd'"),
    bad("trial.train.attack", {"name": "pgd", "steps": 0}, "0", "greater than or equal to 1", "raise it"),
    bad("trial.train.attack", {"steps": 3}, "name", "missing", "must be given"),
    bad("trial.train.loss", {"name": "tradez"}, "'tradez'", "unknown name", "did you mean 'trades'"),
    bad("trial.train.loss", {"name": "trades", "beta": -1}, "-1", "greater than", "raise it"),
    bad("trial.method", "atcm", "'atcm'", "unknown method", "did you mean 'atmc'"),
    bad("trial.method", {"choice": ["atmc", "prune"]}, "'prune'", "unknown method", "known: "),
    # data
    bad("trial.data.train_size", 10**9, "1000000000", "1388 images are left", "ask for 1 to 1388"),
    bad("trial.data.validation_size", 5000, "5000", "the pool has 1438 images", "ask for 1 to 1437"),
    bad("trial.data.root", "/nowhere", "'/nowhere'", "come with", "remove it|leave it out"),
    bad("trial.data.image_size", 16, "16", "images of one size", "remove it"),
    bad("trial.data.augment", {"crop_padding": 8}, "8", "crop all of an image", "set it below 8"),
    # what does not go together
    bad("trial.train", {"epochs": 2, "momentum": 0, "nesterov": True}, "momentum is 0", "nesterov", "raise it"),
    bad("trial.train", {"epochs": 2, "warmup": 2}, "warmup of 2", "does not end within", "lower it"),
    bad("trial.train", {"epochs": 2, "guard": True, "attack": {"name": "none"}}, "guard", "attack is none", "remove"),
    bad(
        "trial.compress",
        {"keep": 0.1, "count": "live", "factors": {"choice": ["none", "uvc"]}},
        "factors is uvc",
        "count live",
        "remove count",
    ),
    bad("trial.compress", {"keep": 0.1, "target": {"robust_accuracy": 0.5}}, "keep", "both set the size", "keep one"),
    bad("trial.compress", {"keep": 0.1, "budget_bytes": 5000}, "budget_bytes", "needs something", "or remove keep"),
    bad("trial.compress", {}, "keep", "missing", "must be given"),
    bad("trial.compress.keep", 1e-9, "1e-09", "raise it to", "raise it to"),
    # objectives, constraints, search, resources
    bad("objectives", {}, "{}", "at least one", "name one"),
    bad("objectives", ["size_bytes"], "['size_bytes']", "must be a mapping", r"write \{"),
    bad("objectives", {"size_bytes": "minimize"}, "'minimize'", "'min' or 'max'", "did you mean 'min'"),
    bad("objectives", {"size": "min"}, "size", "not a metric", "did you mean 'size_bytes'"),
    bad("objectives", {"latency_ms": "min"}, "latency_ms", "do not measure it", "set trial.evaluate.runtime"),
    bad("constraints.clean_accuracy", {"min": 0.9, "max": 0.1}, "0.9", "nothing can meet both", "widen"),
    bad("constraints.clean_accuracy.min", 50, "50", "impossible", "lower it"),
    bad("constraints.size_bytes", {"max": 3}, "3", "impossible", "raise it"),
    bad("constraints.clean_acuracy", {"min": 0.5}, "clean_acuracy", "not a metric", "did you mean 'clean_accuracy'"),
    bad("search.trials", -5, "-5", "greater than or equal to 1", "raise it"),
    bad("search.trials", "many", "'many'", "valid integer", "write a whole number"),
    bad("search.trials", 10**30, "1" + "0" * 30, "less than or equal to", "lower it"),
    bad("search", None, "null", "must be a mapping", r"write \{"),
    bad("search", GONE, "search", "missing", "must be given"),
    bad("search.seed", -1, "-1", "greater than or equal to 0", "raise it"),
    bad("search.sampler", {"name": "grid"}, "'grid'", "'tpe', 'random' or 'nsga2'", "choose one"),
    bad("search.scheduler", {"name": "mo_asha", "reduction_factor": 1}, "1", "greater than 1", "raise it"),
    bad("resources.cpu", 0, "0", "greater than 0", "raise it"),
    bad("resources.cpu", "2", "'2'", "valid number", "without quotes"),
    bad("resources.gpu", -1, "-1", "greater than or equal to 0", "raise it"),
]

DEEP = "[" * 5000 + "]" * 5000
LAUGH = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))])

FILES = [
    torn("empty", "", "null", "no mapping", "starts with 'name: ...'"),
    torn("comments-alone", "# nothing yet\n", "null", "no mapping", "starts with"),
    torn("a-list", "- name: x\n", "[{", "no mapping", "starts with"),
    torn("a-word", "hello", "'hello'", "no mapping", "starts with"),
    torn("html", "<html><body>404</body></html>", "<html>", "no mapping", "starts with"),
    torn("json-of-another-kind", '{"cells": [], "metadata": {}}', "name", "missing", "must be given"),
    torn("tabs", GOOD.replace("    eps", "\teps"), r"'\t'", r"spec.yaml:\d+: not readable as YAML", "mend that line"),
    torn("unclosed", GOOD + "x: [1, 2\n", "spec.yaml:", "not readable as YAML", "mend that line"),
    torn("colon-in-a-value", GOOD.replace("name: bad", "name: bad: worse"), "spec.yaml:1", "not readable", "mend"),
    torn("key-twice", GOOD + "name: again\n", "'name'", "stands twice", "mend that line"),
    torn("two-documents", GOOD + "---\n" + GOOD, "spec.yaml:", "another document", "mend that line"),
    torn(
        "python-object", GOOD + "x: !!python/object/apply:os.system [id]\n", "os.system", "could not determine", "mend"
    ),
    torn("python-name", GOOD + "x: !!python/name:os.system\n", "os.system", "could not determine", "mend"),
    torn("own-tag", GOOD + "x: !include other.yaml\n", "!include", "could not determine", "mend that line"),
    torn("unknown-anchor", GOOD + "x: *nowhere\n", "'nowhere'", "undefined alias", "mend that line"),
    torn("merge-of-a-word", GOOD + "<<: word\n", "spec.yaml:", "expected a mapping", "mend that line"),
    torn("laughs", LAUGH, "20,000 values", "not readable as YAML", "short and flat"),
    torn("deep", f"a: {DEEP}", "64 levels", "not readable as YAML", "short and flat"),
    torn("eats-itself", "a: &a [*a]", "spec.yaml:1", "refers to what it is part of", "mend that line"),
    torn(
        "a-number-of-5000-digits", GOOD.replace("eps: 0.1", "eps: " + "9" * 5000), "4300 digits", "not readable", "mend"
    ),
    torn("base-60", "a: 1" + ":1" * 200_000, "10,000 characters", "not readable", "mend that line"),
    torn("a-date", GOOD + "x: 2024-13-45\n", "spec.yaml", "month must be", "mend that line"),
    torn(
        "latin-1", GOOD.replace("bad", "größe").encode("latin-1"), "spec.yaml", "not UTF-8", "give the path of a YAML"
    ),
    torn("utf-16", GOOD.encode("utf-16"), "spec.yaml", "not UTF-8", "give the path of a YAML"),
    torn("png", b"\x89PNG\r\n\x1a\n" + bytes(100), "spec.yaml", "not UTF-8", "give the path of a YAML"),
    torn("zeros", bytes(100), "spec.yaml", "special characters", "mend"),
    torn("escapes", "name: \x1b[2J\n", "spec.yaml", "special characters", "mend"),
    torn("a-mark-and-nothing", b"\xef\xbb\xbf", "null", "no mapping", "starts with"),
    torn("2-MiB", GOOD + "#" * (2 << 20), "spec.yaml", "larger than 1 MiB", "short YAML file"),
    case("missing", "run nowhere.yaml --check", "nowhere.yaml", "cannot be read", "give the path of a YAML spec"),
    case(
        "a-folder",
        "run there --check",
        "there",
        "is a directory",
        "give the path",
        make=lambda folder: (folder / "there").mkdir(),
    ),
    case("below-a-file", "run spec.yaml/x", "spec.yaml/x", "not a directory", "give the path", make=written(GOOD)),
    case("a-device", "run /dev/zero", "/dev/zero", "larger than 1 MiB", "a spec is a short YAML file"),
    case(
        "link-to-itself",
        "run loop.yaml",
        "loop.yaml",
        "symbolic links",
        "give the path",
        make=lambda folder: (folder / "loop.yaml").symlink_to("loop.yaml"),
    ),
    case(
        "name-in-no-encoding", ["run", "\udcff.yaml"], "\\udcff.yaml", "cannot be read", "give the path of a YAML spec"
    ),
    case("name-too-long", ["run", "x" * 300], "xxx", "file name too long", "give the path of a YAML spec"),
    torn(
        "nothing-to-learn-from",
        yaml.safe_dump(document(("trial.dense", {"epochs": 0}), ("trial.train.distillation", {"weight": 0.5}))),
        "dense.epochs is 0",
        "distillation learns from",
        "raise it, give dense.weights, or remove it",
    ),
]


@pytest.mark.parametrize("bad", [*VALUES, *FILES])
def test_a_bad_spec_is_refused(atmc: Run, tmp_path: Path, bad: Case) -> None:
    refused(atmc, tmp_path, bad)


def test_the_spec_that_the_cases_are_made_of_is_good(atmc: Run, tmp_path: Path) -> None:
    written(GOOD)(tmp_path)
    assert atmc(*WORDS.split()).code == 0
