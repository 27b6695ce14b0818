"""What both stages of a trial, dense and constrained, make from its spec."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from atmc_search.artifact import Architecture
from atmc_search.attacks import build_attack
from atmc_search.data import DeviceData, Splits, augment
from atmc_search.errors import SpecError
from atmc_search.measure import Measurement, measure
from atmc_search.models import placed
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.tasks.start import Start


def architecture_of(spec: AtmcSpec, data: Splits) -> Architecture:
    """The model that the spec asks for, on this data's images and classes."""
    return Architecture(spec.model.name, spec.model.args, data.input_shape, data.classes)


def normalisation_of(spec: AtmcSpec, data: Splits) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, by which the model's first layer normalises.

    Raises:
        SpecError: the spec gives them for another number of channels.
    """
    channels, given = data.input_shape[0], spec.model.normalize
    if given == "data":
        return data.channel_stats()
    if isinstance(given, str):
        return (0.0,) * channels, (1.0,) * channels
    mean, std = given
    if len(mean) != channels:
        raise SpecError(
            f"trial.model.normalize: has {len(mean)} means and deviations, and the images {channels} channels; give "
            "one for each channel"
        )
    return tuple(mean), tuple(std)


def augmentation_of(spec: AtmcSpec) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    """What is done to a batch before the attack; None: nothing."""
    wanted = spec.data.augment
    if not (wanted.crop_padding or wanted.flip):
        return None
    return lambda x, generator: augment(x, crop_padding=wanted.crop_padding, flip=wanted.flip, generator=generator)


def measured_as_asked(spec: AtmcSpec, model: nn.Module, data: DeviceData) -> Measurement:
    """Clean and robust accuracy by `evaluate`, in the trial's threat model."""
    return measure(
        model,
        data,
        build_attack(spec.evaluate.attack, path="trial.evaluate.attack"),
        spec.threat,
        batch_size=spec.evaluate.batch_size,
        seed=spec.evaluate.seed,
    )


def dense_model(architecture: Architecture, start: Start, device: torch.device) -> nn.Module:
    """The dense start, in eval mode."""
    model = architecture.build()
    model.load_state_dict(dict(start.tensors))
    return placed(model, device).eval()
