"""`inspect`, `evaluate`, `export` and `repack`: what takes one artifact file, and no run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from atmc_search.cli.common import PATH, attack_component, check_device, console, echo
from atmc_search.cli.description import description_json, fact, header_text, tensor_table, totals
from atmc_search.errors import ArtifactError, AtmcError, DataError, SpecError, shown

if TYPE_CHECKING:
    from atmc_search.attacks import ThreatModel

_FILE = click.argument("file", type=PATH, metavar="FILE")
_ALLOW = click.option(
    "--allow-custom-models", is_flag=True, help="Import a model named module:attribute. Runs its code: trust the file."
)
_MODEL = ("model", "args", "input", "classes")
# Beside the names in export.TARGETS, which would cost --help seconds to import; a test holds them equal.
_FORMATS = ("onnx", "torchscript", "safetensors", "state_dict")


@click.command()
@_FILE
@_ALLOW
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def inspect(file: Path, allow_custom_models: bool, as_json: bool) -> None:
    """Print what artifact FILE holds: where its model comes from, and what each tensor costs.

    \b
      atmc-search inspect runs/digits-quickstart/artifacts/00003.atmc
      atmc-search inspect model.atmc --json

    The header of a model of somebody else's code is shown without running that code; its tensors are not.
    """
    from atmc_search.api import artifacts as api

    size, header = _header(file)
    closed = _custom(header) and not allow_custom_models
    found = None if closed else api.inspect_artifact(file, allow_custom_models=allow_custom_models)
    if as_json:
        try:
            echo(
                json.dumps(
                    {"file": str(file), "size_bytes": size, "header": header, **description_json(found)}, indent=1
                )
            )
        except RecursionError:
            raise ArtifactError(f"{file}: artifact's header is nested too deep; it is damaged, get it again") from None
        return
    echo(f"{file}: {size:,} bytes")
    for key in [*_MODEL, *(key for key in header if key not in _MODEL)]:
        if key in header:
            echo(f"{header_text(key):12} {fact(key, header[key])}")
    if found is None:
        echo("tensors: the custom model's code has their names; if you trust the file, add --allow-custom-models")
        return
    echo()
    console().print(tensor_table(found))
    echo()
    for line in totals(found):
        echo(line)


@click.command()
@_FILE
@click.option("--data", "name", required=True, metavar="NAME", help="A known dataset, or module:attribute.")
@click.option("--root", help="Folder that holds the dataset's files.  [default: the usual places]")
@click.option("--image-size", type=click.IntRange(min=1), help="Side in pixels that image_folder scales to.")
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Images to measure on.",
)
@click.option(
    "--attack",
    default="pgd",
    show_default=True,
    metavar="NAME",
    help="none, fgsm, pgd, wrm, apgd_ce, apgd_t, autoattack or module:attribute.",
)
@click.option("--eps", type=float, help="Radius of the perturbation, in [0, 1].  [default: the file's]")
@click.option("--norm", type=click.Choice(["linf", "l2"]), help="Norm of the perturbation.  [default: the file's]")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of the attack.  [default for pgd: 20]")
@click.option("--restarts", type=click.IntRange(min=1), help="Random starts of the attack.")
@click.option("--runtime", is_flag=True, help="Run the ONNX export too: MACs, latency and peak memory of an image.")
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
@_ALLOW
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def evaluate(
    file: Path,
    name: str,
    root: str | None,
    image_size: int | None,
    split: Literal["test", "validation", "train"],
    attack: str,
    eps: float | None,
    norm: str | None,
    steps: int | None,
    restarts: int | None,
    runtime: bool,
    device: str,
    allow_custom_models: bool,
    as_json: bool,
) -> None:
    """Measure artifact FILE on images of yours: clean and robust accuracy, with 95 % Wilson intervals.

    \b
      atmc-search evaluate model.atmc --data digits
      atmc-search evaluate model.atmc --data cifar10 --attack autoattack
      atmc-search evaluate model.atmc --data image_folder --root photos
      atmc-search evaluate model.atmc --data digits --runtime
    """
    from atmc_search.api.artifacts import artifact_bytes, load_artifact
    from atmc_search.tasks import TASKS, task_named

    size, header = _header(file)
    if _custom(header) and not allow_custom_models:
        raise ArtifactError(_distrusted(file, header))
    options = {"threat": _threat(file, header, eps, norm), "attack": attack_component(attack, steps, restarts)}
    check_device(device)
    load_artifact(file, allow_custom_models=allow_custom_models)  # a damaged file is named before data is loaded
    kind = task_named(header["task"] if header.get("task") in TASKS else "atmc")
    try:
        found = kind.evaluate(
            artifact_bytes(file),
            data={"name": name, "root": root, "image_size": image_size},
            split=split,
            options=options | ({"runtime": True} if runtime else {}),
            device=device,
            trust=allow_custom_models,
        )
    except (DataError, SpecError) as error:
        raise _in_flags(error) from None
    if as_json:
        echo(json.dumps({"file": str(file), "size_bytes": size, **found.row}, indent=1))
        return
    echo(f"{file}: {size:,} bytes")
    count, of = found.samples
    for figure in found.figures:
        words = figure.name.removesuffix("_accuracy")
        interval = f"   95 % interval {figure.low:.3f} to {figure.high:.3f}" if figure.low is not None else ""
        echo(f"{words:7} {figure.value:.4f}{interval}   ({round(figure.value * count):,} of {count:,})")
    echo(f"n = {count} {of} of {name}; {found.conditions}")
    for note in found.notes:
        echo(note)


@click.command()
@_FILE
@click.option("--to", required=True, type=click.Choice(_FORMATS), help="Format to write.")
@click.option("--out", required=True, type=PATH, help="File to write.")
@click.option("--whole", is_flag=True, help="Keep channels that have no effect; safetensors and state_dict always do.")
@_ALLOW
def export(file: Path, to: str, out: Path, whole: bool, allow_custom_models: bool) -> None:
    """Write the model of artifact FILE for use without this package.

    It takes images in [0, 1], float32 (n, channels, height, width) for any n, and gives logits; it normalises itself.
    What is written has been read back and compared with the artifact's model.

    \b
      atmc-search export model.atmc --to onnx --out model.onnx
      atmc-search export model.atmc --to torchscript --out model.pt
    """
    from atmc_search.api import artifacts as api

    _, header = _header(file)
    if _custom(header) and not allow_custom_models:
        raise ArtifactError(_distrusted(file, header))
    length = api.export_artifact(file, out, to=to, slim=not whole, allow_custom_models=allow_custom_models)
    removed = "" if whole else _removed(file, header, to, allow_custom_models=allow_custom_models)
    echo(f"wrote {out} ({length:,} bytes){removed}")


@click.command()
@_FILE
@click.option("--out", required=True, type=PATH, help="File to write.")
@_ALLOW
def repack(file: Path, out: Path, allow_custom_models: bool) -> None:
    """Write artifact FILE anew in the latest format, without what has no effect on its logits.

    For artifacts of earlier releases: the same model, to rounding, in fewer bytes.

    \b
      atmc-search repack old.atmc --out model.atmc
    """
    from atmc_search.api import artifacts as api

    before, header = _header(file)
    if _custom(header) and not allow_custom_models:
        raise ArtifactError(_distrusted(file, header))
    length = api.repack_artifact(file, out, allow_custom_models=allow_custom_models)
    echo(f"wrote {out} ({length:,} bytes, {before:,} before)")


def _removed(file: Path, header: Mapping[str, Any], to: str, *, allow_custom_models: bool) -> str:
    """What an export to a format that runs left out of the model; empty if nothing."""
    from atmc_search.api import artifacts as api
    from atmc_search.channels import macs, slimmed, width
    from atmc_search.export import BLOCK, RUNNING

    if to not in RUNNING:
        return ""
    shape = tuple(header["input"])
    model = api.load_artifact(file, allow_custom_models=allow_custom_models)
    thin = slimmed(model, shape, multiple=BLOCK)
    gone, of = width(model) - width(thin), width(model)
    if not gone:
        return ""
    return f"; {gone:,} of {of:,} channels removed, {_count(macs(model, shape))} -> {_count(macs(thin, shape))} MACs"


def _count(number: int) -> str:
    return f"{number / 1e6:,.2f} M" if number >= 100_000 else f"{number:,}"


def _header(file: Path) -> tuple[int, Mapping[str, Any]]:
    """The file's length and its header, which is anybody's JSON until the model is built from it."""
    from atmc_search.api.artifacts import artifact_bytes
    from atmc_search.artifact import read_header

    try:
        data = artifact_bytes(file)
        return len(data), read_header(data)
    except ArtifactError as error:
        raise ArtifactError(f"{file}: {error}") from None


def _custom(header: Mapping[str, Any]) -> bool:
    return isinstance(header.get("model"), str) and ":" in header["model"]


def _distrusted(file: Path, header: Mapping[str, Any]) -> str:
    return (
        f"{file}: names the custom model {shown(header['model'])}, whose import runs code; "
        "if you trust the file, add --allow-custom-models"
    )


def _threat(file: Path, header: Mapping[str, Any], eps: float | None, norm: str | None) -> ThreatModel:
    """The threat model asked for, or the file's own."""
    from atmc_search.attacks import ThreatModel, checked_threat
    from atmc_search.registry import validated

    own = header.get("threat")
    known = isinstance(own, list) and len(own) == 2
    if eps is None and not known:
        raise AtmcError(f"{file}: names no threat model to measure under; give --eps, and --norm if it is not linf")
    own_norm, own_eps = own if known else ("linf", None)  # type: ignore[misc]
    if eps is None and norm not in (None, own_norm):
        raise AtmcError(f"--norm {norm}: the file's eps is meant for {shown(own_norm)}; give --eps as well")
    if eps is not None:
        return checked_threat(norm or str(own_norm), eps)
    return validated(ThreatModel, {"norm": own_norm, "eps": own_eps}, path=f"{file}: threat")


def _in_flags(error: AtmcError) -> AtmcError:
    """A complaint about a spec's data section, in terms of this command's flags."""
    text = str(error)
    for path, flag in (("name", "--data"), ("root", "--root"), ("image_size", "--image-size")):
        text = text.replace(f"trial.data.{path}", flag)
    return type(error)(text)
