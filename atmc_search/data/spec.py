"""The section of a spec that says which images to train on, and how they are split."""

from __future__ import annotations

from pydantic import Field

from atmc_search.spec import Section


class AugmentSpec(Section):
    """How training images are changed by chance, each anew in every epoch; never those to validate and test on."""

    crop_padding: int = Field(0, ge=0, description="pixels of black on each side, before a crop of the image's size")
    flip: bool = Field(False, description="mirror left to right with probability 1/2")


class DataSpec(Section):
    """Which images, and how they are split."""

    name: str = Field(description="a known dataset, or 'package.module:attribute'")
    root: str | None = Field(None, description="folder that holds the dataset's files; default: the usual places")
    train_size: int | None = Field(None, ge=1, description="stratified subset of the training images; default: all")
    validation_size: int | None = Field(None, ge=1, description="held out of the training images; default: 20 %")
    test_size: int | None = Field(None, ge=1, description="stratified subset of the test images; default: all")
    seed: int = Field(0, ge=0, description="seed of the splits")
    image_size: int | None = Field(
        None, ge=1, le=1024, description="side in pixels that image_folder scales to; default: images stay as they are"
    )
    augment: AugmentSpec = AugmentSpec()
