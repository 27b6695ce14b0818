"""What is said before a sweep where trials want more than there is. Ray itself does not start here."""

from __future__ import annotations

import pytest
import ray
import torch

from atmc_search.errors import SpecError
from atmc_search.search.cluster import ray_for
from atmc_search.spec import ResourcesSpec


@pytest.fixture
def _two_cores_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})


@pytest.mark.usefixtures("_two_cores_and_a_gpu")
@pytest.mark.parametrize("gpu", [1, 0.5])
def test_a_gpu_that_torch_cannot_use_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch, gpu: float) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = rf"^resources.gpu = {gpu:g}: torch .* finds no CUDA device; .*"
    with pytest.raises(SpecError, match=words) as error, ray_for(ResourcesSpec(gpu=gpu), "local", None):
        pytest.fail("it went on")
    assert "\n" not in str(error.value)
    with ray_for(ResourcesSpec(gpu=0), "local", None):
        pass
    with ray_for(ResourcesSpec(gpu=gpu), "auto", None):
        pass  # a cluster's workers may have what the driver has not
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with ray_for(ResourcesSpec(gpu=gpu), "local", None):
        pass


@pytest.mark.usefixtures("_two_cores_and_a_gpu")
@pytest.mark.parametrize(("name", "wanted"), [("cpu", 3.0), ("gpu", 2.0)])
def test_more_than_there_is_is_said(name: str, wanted: float) -> None:
    resources = ResourcesSpec(**{name: wanted})
    words = rf"^resources\.{name} = {wanted:g}: there are \d here"
    with pytest.raises(SpecError, match=words), ray_for(resources, "local", None):
        pytest.fail("it went on")
    with ray_for(resources, "auto", None):
        pass  # a cluster may grow
