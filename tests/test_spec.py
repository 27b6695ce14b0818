from __future__ import annotations

import copy
import datetime
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_search import spec as specs
from atmc_search.api.runs import load_study
from atmc_search.data import AugmentSpec, DataSpec
from atmc_search.errors import SpecError, shown
from atmc_search.spec import BoundSpec, StudySpec, dump_yaml, parse_yaml
from atmc_search.spec.paths import remove_at, set_at
from atmc_search.tasks import TrialSpace, checked

EXAMPLE = """
name: fashion-lenet
task: atmc
trial:
  data: {name: fashion_mnist}
  model: {name: lenet}
  threat: {norm: linf, eps: 0.1}
  dense: {epochs: 8, lr: 0.1}                      # trained once, shared by every trial that says the same
  train: {epochs: 9, lr: {log_uniform: [0.003, 0.1]}, attack: {name: pgd, steps: 7}}
  compress: {factors: {choice: [none, uvc]}, keep: {log_uniform: [0.002, 0.3]}, bits: {choice: [2, 3, 8]}, rho: 0.1}
objectives: {size_bytes: min, clean_accuracy: max, robust_accuracy: max}
constraints: {clean_accuracy: {min: 0.5}}
search: {trials: 60, sampler: {name: tpe}, scheduler: {name: mo_asha, grace_epochs: 1, reduction_factor: 3}, seed: 0}
resources: {cpu: 1, gpu: 0}
"""
GONE = object()
NAN, INF = float("nan"), float("inf")


def example(path: str = "", value: object = GONE) -> dict[str, Any]:
    """The document of EXAMPLE with one value set, or, without a value, taken out."""
    document: dict[str, Any] = parse_yaml(EXAMPLE, "example")
    if not path:
        return document
    if value is GONE:
        remove_at(document, path)
    else:
        set_at(document, path, value)
    return document


def parse_study(document: object, origin: str = "spec") -> StudySpec:
    """The study as every command has it: read, and its `trial` section by its task."""
    return checked(specs.parse_study(document, origin), origin)


def fill(document: object, config: dict[str, Any]) -> Any:
    """The trial that a config of this study stands for."""
    return TrialSpace.of(parse_study(document)).fill(config)


def complaint(of: Callable[[], object]) -> str:
    with pytest.raises(SpecError) as caught:
        of()
    text = str(caught.value)
    assert text.isprintable()
    assert len(text.splitlines()) == 1
    return text


def one_line_or(of: Callable[[], object]) -> object:
    """What `of` returns, or None where it raised a SpecError of one line that can be printed."""
    try:
        return of()
    except SpecError as error:
        text = str(error)
    assert len(text.splitlines()) == 1
    text.encode()
    return None


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    return functools.reduce(lambda inner, _: wrap(inner), range(depth), None)


def cyclic() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def test_the_example_of_the_design_is_valid() -> None:
    spec = parse_study(parse_yaml(EXAMPLE, "example"))
    assert spec.name == "fashion-lenet"
    assert list(TrialSpace.of(spec).distributions) == [
        "trial.train.lr",
        "trial.compress.factors",
        "trial.compress.keep",
        "trial.compress.bits",
    ]
    assert spec.constraints["clean_accuracy"].min == 0.5
    assert spec.search.scheduler.reduction_factor == 3


def test_a_sampled_config_makes_a_trial() -> None:
    config = {
        "trial.train.lr": 0.01,
        "trial.compress.factors": "uvc",
        "trial.compress.keep": 0.1,
        "trial.compress.bits": 3,
    }
    trial = fill(example(), config)
    assert (trial.train.lr, trial.compress.factors, trial.compress.keep, trial.compress.bits) == (0.01, "uvc", 0.1, 3)
    assert trial.train.attack.name == "pgd"
    assert trial.train.attack.args == {"steps": 7}
    assert trial.dense.lr == 0.1


def test_images_are_augmented_only_where_the_spec_says_so() -> None:
    assert DataSpec(name="digits").augment == AugmentSpec(crop_padding=0, flip=False)
    written = DataSpec.model_validate({"name": "digits", "augment": {"crop_padding": 4, "flip": True}})
    assert written.augment == AugmentSpec(crop_padding=4, flip=True)


def test_a_config_that_leaves_a_distribution_standing_makes_no_trial() -> None:
    text = complaint(lambda: fill(example(), {"trial.train.lr": 0.01}))
    assert "trial.compress.factors" in text


# path, value (GONE: taken out), what the message must say beside the path
BAD: list[tuple[str, object, list[str]]] = [
    # unknown keys
    ("nmae", "x", ["unknown key", "did you mean 'name'"]),
    ("trial.dat", {}, ["unknown key", "did you mean 'data'"]),
    ("trial.data.nme", "x", ["unknown key", "did you mean 'name'"]),
    ("trial.threat.nrom", "l2", ["unknown key", "did you mean 'norm'"]),
    ("trial.dense.epoch", 3, ["unknown key", "did you mean 'epochs'"]),
    ("trial.train.learning_schedule", "x", ["unknown key", "'lr_schedule'"]),
    ("trial.compress.keeep", 0.1, ["unknown key", "did you mean 'keep'"]),
    ("trial.evaluate.attak", {}, ["unknown key", "did you mean 'attack'"]),
    ("constraints.clean_accuracy.mni", 0.1, ["unknown key", "did you mean 'min'"]),
    ("search.trails", 3, ["unknown key", "did you mean 'trials'"]),
    ("search.sampler.nam", "tpe", ["unknown key", "did you mean 'name'"]),
    ("search.scheduler.grace", 2, ["unknown key", "did you mean 'grace_epochs'"]),
    ("resources.cpus", 1, ["unknown key", "did you mean 'cpu'"]),
    ("resources.zzzzz", 1, ["unknown key", "known: cpu, gpu"]),
    # wrong types
    ("trial.dense.lr", "0.1", ["'0.1'", "should be a valid number"]),
    ("trial.dense.epochs", "8", ["'8'", "should be a valid integer"]),
    ("trial.dense.epochs", True, ["true", "should be a valid integer"]),
    ("trial.dense.epochs", 8.0, ["8.0", "should be a valid integer"]),
    ("trial.dense.lr", True, ["true", "should be a valid number"]),
    ("trial.data", ["fashion_mnist"], ["['fashion_mnist']", "must be a mapping"]),
    ("trial.data", "fashion_mnist", ["'fashion_mnist'", "must be a mapping"]),
    ("trial", [1], ["[1]", "must be a mapping"]),
    ("search", 60, ["60", "must be a mapping"]),
    ("trial.model", "lenet", ["'lenet'", "must be a mapping"]),
    ("trial.model", {"choice": ["lenet", "mlp"]}, ["'lenet'", "must be a mapping"]),
    ("trial.model.name", 3, ["3", "should be a valid string"]),
    ("trial.data.name", None, ["null", "should be a valid string"]),
    # distributions
    ("trial.train.lr.log_uniform", [0.1, 0.003], ["[0.1, 0.003]", "empty", "did you mean [0.003, 0.1]"]),
    ("trial.train.lr.log_uniform", [0.1, 0.1], ["[0.1, 0.1]", "empty", "plain value"]),
    ("trial.train.lr.log_uniform", [0, 0.1], ["[0, 0.1]", "above 0", "use uniform"]),
    ("trial.train.lr.log_uniform", [0.1], ["[0.1]", "give two numbers"]),
    ("trial.train.lr.log_uniform", 0.1, ["0.1", "must be a list", "write [a, b]"]),
    ("trial.train.lr.log_uniform", ["a", "b"], ["'a'", "finite numbers"]),
    ("trial.train.lr.log_uniform", [False, True], ["false", "finite numbers"]),
    ("trial.train.lr", {"uniform": [0.1, INF]}, ["trial.train.lr.uniform", "inf", "finite"]),
    ("trial.train.lr", {"uniform": [NAN, 1]}, ["trial.train.lr.uniform", "nan", "finite"]),
    ("trial.train.lr", {"uniform": [0.1, 10**400]}, ["trial.train.lr.uniform", "1000", "64 bits"]),
    ("trial.train.epochs", {"int_uniform": [1, 2.5]}, ["trial.train.epochs.int_uniform", "2.5", "whole numbers"]),
    ("trial.compress.bits.choice", [], ["[]", "list at least one"]),
    ("trial.compress.bits.choice", [2, 2], ["[2, 2]", "twice", "once"]),
    ("trial.compress.bits.choice", [2, 2.0], ["[2, 2.0]", "twice"]),
    ("trial.compress.bits.choice", [1, True], ["[1, true]", "twice"]),
    ("trial.compress.factors.choice", [{"a": 1}], ["{'a': 1}", "no scalar"]),
    ("trial.compress.factors.choice", [["none"]], ["['none']", "no scalar"]),
    ("trial.compress.factors.choice", ["none", NAN], ["nan", "finite"]),
    # a distribution whose far end the trial would refuse
    ("trial.compress.keep", {"uniform": [0.5, 1.5]}, ["1.5", "less than or equal to 1"]),
    ("trial.compress.keep", {"uniform": [0, 1]}, ["0.0", "greater than 0"]),
    ("trial.compress.bits", {"choice": [2, 12]}, ["12", "1 to 8, or 32", "choose"]),
    ("trial.compress.bits", {"int_uniform": [4, 9]}, ["9", "1 to 8, or 32"]),
    (
        "trial.train.lr_schedule",
        {"choice": ["cosine", "cosin"]},
        ["'cosin'", "'cosine', 'linear', 'constant' or 'cyclic'"],
    ),
    ("trial.compress.schedule", {"name": "cubic", "form": 0.1}, ["form: unknown key", "did you mean 'from'", "freeze"]),
    ("trial.compress.schedule", {"name": "cubic", "begin": 0.1}, ["begin: unknown key", "from, name, share, to"]),
    (
        "trial.compress.schedule",
        {"name": "cubic", "to": 0.9, "freeze": 0.8},
        ["to 0.9 and freeze 0.8 are out of order"],
    ),
    ("trial.compress.schedule", {"name": "linear"}, ["'linear'", "'cubic' or 'grow'"]),
    ("trial.compress", {"keep": 0.1, "pruning": "none", "schedule": {"name": "cubic"}}, ["pruning is none; remove"]),
    ("trial.compress", {"keep": 0.1, "factors": "uvc", "count": "live"}, ["factors is uvc", "or remove count"]),
    ("trial.compress", {"keep": 0.1, "pruning": "none", "count": "live"}, ["pruning none", "or remove count"]),
    ("trial.compress", {"keep": 0.1, "pruning": "none", "price": "bytes"}, ["pruning is none; remove price"]),
    ("trial.compress", {"keep": 0.1, "pruning": "hydra", "factors": "uvc"}, ["factors is uvc; set factors to none"]),
    ("trial.compress", {"keep": 0.1, "code_price": 0.01}, ["code_price", "bits is 32", "set bits to 1 to 8"]),
    ("trial.compress", {"keep": 0.1, "pruning": "hydra", "count": "live"}, ["scores.budget is layer", "to global"]),
    ("trial.compress", {"keep": 0.1, "pruning": "harp", "factors": "uvc"}, ["harp scores", "set factors to none"]),
    ("trial.compress", {"keep": 0.1, "pruning": "harp", "price": "bytes"}, ["price bytes", "harp in each", "remove"]),
    ("trial.compress", {"keep": 0.1, "pruning": "harp", "scores": {"budget": "global"}}, ["remove scores.budget"]),
    ("trial.compress", {"budget_bytes": 900, "pruning": "harp"}, ["keep is missing", "pruning projected"]),
    ("trial.compress", {"keep": 0.1, "pruning": "harp", "schedule": {"name": "cubic"}}, ["schedule is of projected"]),
    (
        "trial.compress",
        {"keep": 0.1, "count": "live", "schedule": {"name": "grow"}},
        ["count is live", "remove them, or schedule"],
    ),
    ("trial.train.eps", -0.1, ["-0.1", "greater than or equal to 0"]),
    (
        "trial",
        example()["trial"] | {"dense": {"epochs": 1, "eps": 8}},
        ["dense.eps 8 lets every pixel", "8/255 write 0.03137"],
    ),
    ("trial.train.clip_norm", 0.0, ["0.0", "greater than 0"]),
    ("trial.train", {"epochs": 9, "warmup": 9}, ["warmup of 9 epochs", "within epochs: 9", "lower it"]),
    ("trial.train", {"epochs": 2, "momentum": 0.0, "nesterov": True}, ["nesterov needs momentum", "remove nesterov"]),
    # values out of range
    ("trial.compress.bits", 12, ["12", "1 to 8, or 32", "choose"]),
    ("trial.compress.bits", 0, ["0", "greater than or equal to 1"]),
    ("trial.compress.bits", 33, ["33", "less than or equal to 32"]),
    ("trial.compress.keep", 0, ["0", "greater than 0"]),
    ("trial.compress.keep", 1.5, ["1.5", "less than or equal to 1"]),
    ("trial.compress.rho", -0.1, ["-0.1", "greater than or equal to 0"]),
    ("trial.compress.codebook_from", 1, ["1", "less than 1"]),
    ("trial.threat.eps", -0.1, ["-0.1", "greater than or equal to 0"]),
    ("trial.threat.eps", NAN, ["nan", "finite"]),
    ("trial.threat", {"norm": "linf", "eps": 8}, ["eps 8 ", "in [0, 1]", "for 8/255 write 0.03137"]),
    ("trial.dense.lr", INF, ["inf", "finite"]),
    ("trial.model.width", NAN, ["nan", "finite"]),
    ("trial.threat.norm", "l1", ["'l1'", "'linf' or 'l2'"]),
    ("trial.dense.momentum", 1.0, ["1.0", "less than 1"]),
    ("trial.data.train_size", 0, ["0", "greater than or equal to 1"]),
    ("trial.data.image_size", 0, ["0", "greater than or equal to 1"]),
    ("trial.data.image_size", 1025, ["1025", "less than or equal to 1024"]),
    ("trial.data.image_size", "32", ["'32'", "should be a valid integer"]),
    ("trial.data.augment", {"crop": 4}, ["trial.data.augment.crop", "unknown key", "did you mean 'crop_padding'"]),
    ("trial.data.augment", {"crop_padding": -1}, ["augment.crop_padding = -1", "greater than or equal to 0"]),
    ("trial.data.augment", {"flip": 1}, ["trial.data.augment.flip = 1", "should be a valid boolean"]),
    ("trial.data.augment", True, ["true", "must be a mapping"]),
    ("trial.seed", -1, ["-1", "greater than or equal to 0"]),
    ("trial.model.width", 10**5000, ["int", "64 bits"]),
    ("search.trials", 0, ["0", "greater than or equal to 1"]),
    ("search.seed", 2**32, [str(2**32), "less than"]),
    ("search.sampler.name", "tpee", ["'tpee'", "'tpe'"]),
    ("search.scheduler.reduction_factor", 1, ["1", "greater than 1"]),
    ("resources.gpu", -1, ["-1", "greater than or equal to 0"]),
    ("resources.cpu", NAN, ["nan", "finite"]),
    # objectives and constraints
    ("objectives", {}, ["{}", "at least one", "or leave objectives out"]),
    ("objectives.size_bytes", "minimise", ["'minimise'", "'min' or 'max'"]),
    ("objectives", {1: "min"}, ["1", "valid string"]),
    ("constraints.clean_accuracy", {}, ["{}", "give min, max or both"]),
    ("constraints.clean_accuracy", {"min": 0.9, "max": 0.1}, ["0.9", "0.1", "widen"]),
    ("constraints.clean_accuracy", {"min": NAN}, ["constraints.clean_accuracy.min", "nan", "finite"]),
    ("constraints.clean_accuracy", 0.5, ["0.5", "must be a mapping"]),
    # study names
    ("name", "../x", ["'../x'", "use letters"]),
    ("name", "", ["''", "use letters"]),
    ("name", ".hidden", ["'.hidden'", "use letters"]),
    ("name", "a/b", ["'a/b'", "use letters"]),
    ("name", "a\n", ["'a\\n'", "use letters"]),
    ("name", "a" * 101, ["aaaa", "at most 100"]),
    ("name", 7, ["7", "valid string"]),
    # missing
    ("name", GONE, ["missing", "must be given"]),
    ("trial", GONE, ["missing", "must be given"]),
    ("search", GONE, ["missing", "must be given"]),
    ("search.trials", GONE, ["missing", "must be given"]),
    ("trial.data", GONE, ["missing", "must be given"]),
    ("trial.model.name", GONE, ["missing", "must be given"]),
    ("trial.threat.eps", GONE, ["missing", "must be given"]),
    ("trial.compress.keep", GONE, ["missing", "must be given"]),
    # what no YAML file should hold
    ("trial.model.when", datetime.date(2024, 1, 2), ["2024", "no plain value", "quote dates"]),
    ("trial.model.raw", b"\xff", ["xff", "no plain value"]),
    ("trial.model.odd", {1: 2}, ["key 1", "quote it"]),
    ("trial.model.deep", nested(5000, lambda x: [x]), ["nested too deeply"]),
    ("trial.model.deep", nested(5000, lambda x: {"a": x}), ["nested too deeply"]),
    ("trial.model.long", [0] * 20_000, ["too long"]),
    ("trial.model.loop", cyclic(), ["nested too deeply"]),
    ("name", nested(5000, lambda x: [x]), ["valid string"]),
]


@pytest.mark.parametrize(
    ("path", "value", "says"), BAD, ids=lambda part: shown(part, 40) if part is not GONE else "gone"
)
def test_a_bad_spec_is_refused_in_one_line(path: str, value: object, says: list[str]) -> None:
    text = complaint(lambda: parse_study(example(path, value), "study.yaml"))
    assert text.startswith("study.yaml: ")
    for part in [path, *says]:
        assert part in text
    assert len(text) < 400


@pytest.mark.parametrize("document", [None, [], "name", 3, nested(5000, lambda x: [x])])
def test_a_spec_that_is_no_mapping_is_refused(document: object) -> None:
    assert "no mapping; a spec starts with" in complaint(lambda: parse_study(document))


def test_line_breaks_in_keys_do_not_break_the_line() -> None:
    assert "objectives.a b" in complaint(lambda: parse_study(example("objectives", {"a\n b": 3})))
    assert complaint(lambda: parse_study(example("\ud800\nx", 3)))


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "1e5", "0", "a" * 100])
def test_study_names_that_are_folders_are_allowed(name: str) -> None:
    spec = parse_study(example("name", name))
    assert parse_study(parse_yaml(dump_yaml(spec), "again")).name == name


@pytest.mark.parametrize("bits", [1, 8, 32])
def test_bits_at_the_edges_are_allowed(bits: int) -> None:
    config = {"trial.train.lr": 0.01, "trial.compress.factors": "none", "trial.compress.keep": 1.0}
    assert fill(example("trial.compress.bits", bits), config).compress.bits == bits


@pytest.mark.parametrize(
    ("bound", "value", "violation"),
    [
        (BoundSpec(min=0.5), 0.25, 0.25),
        (BoundSpec(min=0.5), 0.75, -0.25),
        (BoundSpec(max=10), 12, 2),
        (BoundSpec(max=10), 10, 0),
        (BoundSpec(min=1, max=4), 0, 1),
        (BoundSpec(min=1, max=4), 6, 2),
        (BoundSpec(min=1, max=4), 2, -1),
        (BoundSpec(min=3, max=3), 3, 0),
    ],
)
def test_bounds_measure_by_how_much_a_value_lies_outside(bound: BoundSpec, value: float, violation: float) -> None:
    assert bound.violation(value) == violation


# --- YAML ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E+2", 100.0),
        ("-2.5e3", -2500.0),
        (".5e1", 5.0),
        ("1.e-2", 0.01),
        ("0.1", 0.1),
        ("8", 8),
        ("'1e-3'", "1e-3"),
        ("e-3", "e-3"),
        ("1e", "1e"),
        ("none", "none"),
        ("null", None),
    ],
)
def test_yaml_scalars(text: str, value: object) -> None:
    read = parse_yaml(f"a: {text}", "x")["a"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "f.yaml:1"),
        ("a: 1\nb: {c: 2\nd: 3", "f.yaml:3"),
        ("a: 1\n\nb:\n  c: 2\n  c: 3\n", "f.yaml:5: not readable as YAML (key 'c' stands twice)"),
        ("a: 1\n2: 3\n", "f.yaml:2: not readable as YAML (key 2 is not a word)"),
        ("? [a]\n: 1\n", "f.yaml:1: not readable as YAML (key ['a'] is not a word)"),
        ("a: !!python/object/apply:os.getcwd []", "f.yaml:1"),
        ("a: \x00", "f.yaml"),
        ("a: *b", "f.yaml:1"),
        ("a: &a {b: *a}", "refers to what it is part of"),
        ("--- a\n--- b", "f.yaml:2"),
        ("[" * 500_000, "more than 64 levels"),
        ("- " * 500_000, "more than 64 levels"),
        ("a: [" + "x, " * 300_000 + "]", "more than 20,000 values"),
        ("a: &a [x]\nb: [" + "*a, " * 300_000 + "]", "more than 1,000 aliases"),
        ("a: 1" + ":1" * 300_000, "more than 10,000 characters"),
        ("a: &a [*a]", "refers to what it is part of"),
        ("a: " + "9" * 5000, "f.yaml"),
        ("a: 2024-13-45", "month"),
        ('a: !!int ""', "f.yaml"),
        ("a: !!bool maybe", "f.yaml"),
        ("a: !!timestamp soon", "f.yaml"),
        ("!!map [[1, 2]]", "f.yaml"),
    ],
    ids=lambda text: shown(text, 30),
)
def test_bad_yaml_is_refused_in_one_line(text: str, says: str) -> None:
    message = complaint(lambda: parse_yaml(text, "f.yaml"))
    assert says in message
    assert "not readable as YAML" in message
    assert "mend that line" in message


def test_merge_keys_fill_in_what_is_not_written() -> None:
    text = "base: &base {x: 1, y: 2}\nnext: &next {<<: *base, x: 3}\nlast: {<<: *next, z: 4}"
    assert parse_yaml(text, "x") == {
        "base": {"x": 1, "y": 2},
        "next": {"x": 3, "y": 2},
        "last": {"x": 3, "y": 2, "z": 4},
    }
    assert "twice" in complaint(lambda: parse_yaml("a: &a {x: 1}\nb: {<<: *a, x: 2, x: 3}", "x"))


@pytest.mark.parametrize(
    "wrap",
    [lambda names: f"[{', '.join(names)}]", lambda names: "{<<: [" + ", ".join(names) + "]}"],
    ids=["lists", "merges"],
)
def test_aliases_of_aliases_are_refused_where_they_stand(wrap: Callable[[list[str]], str]) -> None:
    lines = ["a0: &a0 {k: v}"] + [f"a{n}: &a{n} {wrap([f'*a{n - 1}'] * 10)}" for n in range(1, 12)]
    said = complaint(lambda: parse_yaml("\n".join(lines), "x"))
    assert "x:5: not readable as YAML (more than 20,000 values, aliases written out" in said


def test_the_same_bomb_made_in_python_is_refused_too() -> None:
    laugh = functools.reduce(lambda inner, _: [inner] * 10, range(12), "x")
    assert "too long" in complaint(lambda: parse_study(example("trial.model.width", laugh)))
    assert "valid string" in complaint(lambda: parse_study(example("name", laugh)))


def test_within_the_limits_aliases_are_plain_values() -> None:
    text = "a: &a {x: [1, 2]}\nb: [*a, *a]\nc: {<<: *a, y: *a}"
    assert parse_yaml(text, "x") == {
        "a": {"x": [1, 2]},
        "b": [{"x": [1, 2]}] * 2,
        "c": {"x": [1, 2], "y": {"x": [1, 2]}},
    }


# --- files ---


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "study.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, EXAMPLE)
    assert load_study(path) == load_study(str(path)) == parse_study(example())


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert f"{missing}: cannot be read" in complaint(lambda: load_study(missing))
    assert "cannot be read" in complaint(lambda: load_study(tmp_path))
    assert "not UTF-8" in complaint(lambda: load_study(write(tmp_path, b"name: \xff\xfe")))
    assert "larger than 1 MiB" in complaint(lambda: load_study(write(tmp_path, EXAMPLE + "#" * (1 << 20))))
    assert "no mapping" in complaint(lambda: load_study(write(tmp_path, "")))
    text = complaint(lambda: load_study(write(tmp_path, EXAMPLE + "task: atmc\n")))
    assert f"study.yaml:{EXAMPLE.count(chr(10)) + 1}: " in text
    assert "'task' stands twice" in text


def test_overrides_are_set_before_validation(tmp_path: Path) -> None:
    path = write(tmp_path, EXAMPLE)
    spec = load_study(path, {"trial.compress.bits": 4, "search.trials": 3, "trial.evaluate.every": 2})
    assert spec == parse_study(
        example("trial.compress.bits", 4)
        | {"search": example("search.trials", 3)["search"]}
        | {"trial": example("trial.compress.bits", 4)["trial"] | {"evaluate": {"every": 2}}}
    )
    assert "trial.compress.bits = 12" in complaint(lambda: load_study(path, {"trial.compress.bits": 12}))
    assert "trial.compress.bit: unknown key" in complaint(lambda: load_study(path, {"trial.compress.bit": 4}))
    assert "trial.seed.x: does not lead into a section" in complaint(
        lambda: load_study(write(tmp_path, EXAMPLE.replace("trial:\n", "trial:\n  seed: 3\n")), {"trial.seed.x": 4})
    )
    assert "does not lead" in complaint(lambda: load_study(write(tmp_path, "[]"), {"name": "x"}))


def test_an_override_changes_one_place_of_an_aliased_section(tmp_path: Path) -> None:
    text = EXAMPLE.replace("dense: {epochs: 8, lr: 0.1}", "dense: &stage {epochs: 8, lr: 0.1}")
    text = text.replace(
        "train: {epochs: 9, lr: {log_uniform: [0.003, 0.1]}, attack: {name: pgd, steps: 7}}", "train: *stage"
    )
    spec = load_study(write(tmp_path, text), {"trial.train.epochs": 3})
    assert (spec.trial["train"]["epochs"], spec.trial["dense"]["epochs"]) == (3, 8)


# --- round trip and fingerprint ---

plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["1e-3", "1e5", "+1E-4", "yes", "null", "~", "2024-01-01", "<<", "=", "0x1f", "1_0", "a: b", "- a", "#", "1:30"]
)
# No key that would make a distribution of it.
keys = words.filter(lambda key: key not in ("choice", "uniform", "log_uniform", "int_uniform", "name"))
values = st.recursive(
    plain | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)


@given(words, st.dictionaries(keys, values, max_size=4), st.lists(words, min_size=1, max_size=3, unique=True))
@settings(max_examples=150, deadline=None)
def test_dump_yaml_reads_back_equal(name: str, arguments: dict[str, Any], choices: list[str]) -> None:
    document = example("trial.model", {"name": name, **arguments})
    document["trial"]["data"]["name"] = {"choice": choices}
    document["constraints"] = {name: {"max": 1.0}}
    spec = parse_study(document)
    again = parse_study(parse_yaml(dump_yaml(spec), "again"))
    assert again == spec
    assert again.fingerprint == spec.fingerprint


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return value


@pytest.mark.parametrize(
    "change",
    [
        reversed_keys,
        lambda d: d | {"name": "other"},
        lambda d: d | {"search": d["search"] | {"trials": 7}},
        lambda d: d | {"resources": {"cpu": 4, "gpu": 1}},
    ],
)
def test_fingerprint_keeps(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    changed = change(copy.deepcopy(example()))
    assert changed != example() or list(changed) != list(example())
    assert parse_study(changed).fingerprint == parse_study(example()).fingerprint


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("task", "other"),
        ("trial.seed", 1),
        ("trial.data.seed", 1),
        ("trial.model.width", 3),
        ("trial.threat.eps", 0.2),
        ("trial.dense.lr", 0.2),
        ("trial.train.lr", {"log_uniform": [0.003, 0.2]}),
        ("trial.train.lr", {"uniform": [0.003, 0.1]}),
        ("trial.compress.bits", {"choice": [2, 3]}),
        ("trial.compress.rho", 0.2),
        ("trial.evaluate", {"every": 2}),
        ("objectives.size_bytes", "max"),
        ("objectives.robust_accuracy", GONE),
        ("constraints.clean_accuracy.min", 0.6),
        ("constraints", {}),
        ("search.seed", 1),
        ("search.sampler.name", "random"),
        ("search.sampler.startup_trials", 11),
        ("search.scheduler.grace_epochs", 2),
    ],
)
def test_fingerprint_changes_with(path: str, value: object) -> None:
    fingerprint = specs.parse_study(example(path, value)).fingerprint  # `other` is no task
    assert fingerprint != parse_study(example()).fingerprint
    assert len(fingerprint) == 12
    assert set(fingerprint) <= set("0123456789abcdef")


def test_a_study_that_names_no_objectives_has_its_task_s() -> None:
    silent = parse_study(example("objectives"))
    assert silent.objectives == {"size_bytes": "min", "clean_accuracy": "max", "robust_accuracy": "max"}
    assert silent.fingerprint == parse_study(example()).fingerprint
    unread = specs.parse_study(example("objectives"))  # by its task
    assert unread.objectives == {}
    assert specs.parse_study(parse_yaml(dump_yaml(unread), "again")) == unread


# --- anything at all ---

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**310)
    | st.floats()
    | st.text(max_size=8)
    | st.text(st.characters(), max_size=4),  # lone surrogates too
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4)
        | st.dictionaries(st.sampled_from(["choice", "uniform", "log_uniform", "int_uniform"]), inner, max_size=1)
        | st.dictionaries(
            st.sampled_from(["choice", "uniform", "log_uniform"]), st.lists(inner, max_size=3), max_size=2
        )
    ),
    max_leaves=12,
)


def sections(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of every value in a document."""
    found = [path]
    if isinstance(value, dict):
        for key, child in value.items():
            found += sections(child, (*path, key))
    return found


@given(st.sampled_from(sections(example())), anything)
@settings(max_examples=400, deadline=None)
def test_any_document_is_valid_or_refused_in_one_line(path: tuple[str, ...], value: object) -> None:
    document: Any = example()
    if path:
        here = document
        for part in path[:-1]:
            here = here[part]
        here[path[-1]] = value
    else:
        document = value
    spec = one_line_or(lambda: parse_study(document))
    if isinstance(spec, StudySpec):
        assert parse_study(parse_yaml(dump_yaml(spec), "again")).fingerprint == spec.fingerprint


@given(st.text(max_size=60) | st.text("{}[]:,-&*!<>|'\"\n ab1.eE%@`?#~", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_yaml_or_refused_in_one_line(text: str) -> None:
    one_line_or(lambda: parse_yaml(text, "x"))
