"""Architectures by name, built from a seed and wrapped so that they take images in [0, 1].

To add one, write a file with a factory, `(*, input_shape, classes, ...) -> nn.Module`, and list it in `MODELS`; or keep
it in a module of your own and write `name: package.module:attribute` in the spec. A factory is given those of
`input_shape` and `classes` that its signature names, and the keys beside `name` in the spec, so that torchvision's own
serve too: `{name: torchvision.models:resnet18, num_classes: 10}`. It builds on the CPU, takes normalised images, and
leaves normalisation out.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from atmc_search.errors import AtmcError, SpecError, did_you_mean, shown
from atmc_search.models.layout import placed
from atmc_search.models.lenet import lenet
from atmc_search.models.mlp import mlp
from atmc_search.models.mobilenet_v2 import mobilenet_v2
from atmc_search.models.normalize import Normalize
from atmc_search.models.resnet import resnet18, resnet34, resnet50, resnet101
from atmc_search.models.small_cnn import small_cnn
from atmc_search.models.wide_resnet import wide_resnet
from atmc_search.registry import resolve

__all__ = ["MODELS", "Normalize", "build_model", "placed"]

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "lenet": lenet,
    "mlp": mlp,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "small_cnn": small_cnn,
    "wide_resnet": wide_resnet,
}


def build_model(
    name: str,
    args: Mapping[str, Any],
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> nn.Sequential:
    """A model with seeded weights, on the CPU and in train mode: `normalize`, then `net`.

    It maps images in [0, 1], float32 (n, channels, height, width), to logits (n, classes). Torch's global random state
    is left as it was.

    Args:
        name: a key of `MODELS`, or "package.module:attribute".
        args: the architecture's own settings.
        input_shape: (channels, height, width).
        classes: outputs.
        mean: of each channel, in units of [0, 1].
        std: of each channel, above 0.
        seed: of the initial weights.

    Raises:
        SpecError: an unknown name or setting, a value that the architecture refuses, or a user's factory that fails or
            whose model does not give (2, classes) logits for a batch of 2.
    """
    assert len(mean) == len(std) == input_shape[0], (mean, std, input_shape)
    factory = resolve(name, MODELS, path="trial.model.name")
    where = f"trial.model.name = {name!r}"
    kwargs = _call_arguments(factory, args, {"input_shape": input_shape, "classes": classes}, where)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would also reseed every GPU, which fork_rng(devices=[]) does not put back.
        torch.default_generator.manual_seed(seed)
        try:
            net = factory(**kwargs)
        except AtmcError:
            raise
        except Exception as error:  # user code may raise anything
            called = f"{name}({', '.join(kwargs)})"
            raise SpecError(f"{where}: {called} failed ({_reason(error)}); check its settings or mend it") from error
        if not isinstance(net, nn.Module):
            raise SpecError(f"{where}: returned {shown(net)}; it must return a torch.nn.Module")
        model = nn.Sequential(OrderedDict(normalize=Normalize(mean, std), net=net))
        _check_output(model, input_shape, classes, where)
    return model


def _call_arguments(factory: Any, args: Mapping[str, Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keyword arguments to call `factory` with: `args`, and what it takes of `given`."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        raise SpecError(f"{where}: {shown(factory)} has no signature; name a function that returns a model") from None
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {parameter.name: parameter for parameter in parameters if parameter.kind in by_keyword}
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    known = [key for key in named if key not in given]
    for key in args:
        if key in given:
            raise SpecError(f"trial.model.{key} = {shown(args[key])}: follows from the dataset; remove it")
        if key not in named and not takes_any:
            remedy = did_you_mean(key, known) if known else "this model has no settings, remove it"
            raise SpecError(f"trial.model.{key}: unknown key; {remedy}")
    kwargs = {key: value for key, value in given.items() if key in named} | dict(args)
    for key, parameter in named.items():
        if parameter.default is inspect.Parameter.empty and key not in kwargs:
            raise SpecError(f"trial.model.{key}: missing; this model needs it, known: {', '.join(sorted(known))}")
    return kwargs


def _check_output(model: nn.Module, input_shape: tuple[int, int, int], classes: int, where: str) -> None:
    model.eval()
    zeros = torch.zeros(2, *input_shape)
    try:
        with torch.no_grad():
            logits = model(zeros)
    except Exception as error:  # user code may raise anything
        raise SpecError(f"{where}: fails on images {tuple(zeros.shape)} ({_reason(error)}); mend the model") from error
    model.train()
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise SpecError(
            f"{where}: returns {shape} for images {tuple(zeros.shape)}; it must return (2, {classes}) logits: set its "
            f"number of classes (in torchvision, num_classes: {classes})"
        )


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
