"""The path that GPUs and graphs take, forced here: the numbers of the CPU's path, and the goldens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.blocks.backend import dense_path
from medmap_monai.networks.dmafnet import DMAFNet
from medmap_monai.networks.early_fusion_unet import EarlyFusionUNet
from medmap_monai.networks.unet import ModalityUNet
from tests.networks.backbones import SMALL, random_case, small
from tests.networks.golden import formula_input, golden, with_formula_weights
from tests.networks.test_backbone_goldens import STEP

SIZE = (8, 8, 8)
NETWORKS: dict[str, Callable[[], ModalityNetwork]] = {
    **{name: lambda name=name: small(name) for name in SMALL},  # type: ignore[misc]
    "unet": lambda: ModalityUNet(3, 4, 4, channels=(4, 8, 8), deep_supervision=1),
    "dmafnet": lambda: DMAFNet(3, 4, 4, channels=(4, 8), deep_supervision=0, dmaf={"depth": 1}),
    "early_fusion_unet": lambda: EarlyFusionUNet(3, 4, 4, channels=(4, 8), deep_supervision=0),
    "aligned rfnet": lambda: AlignedNetwork(small("rfnet"), levels=[0, -1]),
    "aligned mmformer": lambda: AlignedNetwork(small("mmformer"), levels=[-1]),
}


def make(name: str) -> ModalityNetwork:
    torch.manual_seed(0)
    return NETWORKS[name]().double().eval()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_outputs_and_gradients_are_those_of_the_cpu(name: str) -> None:
    network = make(name)
    image, mask = random_case(3, 4, SIZE)
    sample, modality = torch.nonzero(mask, as_tuple=True)
    found = []
    for dense in (False, True):
        network.zero_grad()
        with dense_path(dense):
            features = network.prepare(network.encode(image, mask))
            output = network.decode(features, mask)
            students = network.decode_student(features, sample, modality, mask).logits
            loss = output.logits.square().mean() + students.square().mean()
            if network.has_unimodal_decoder:
                loss = loss + network.decode_unimodal(features, sample, modality).square().mean()
            loss.backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]
        found.append([output.logits.detach(), students.detach(), *output.fused, *gradients])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@torch.no_grad()
def test_absent_modalities_have_no_influence(name: str) -> None:
    network = make(name)
    image, mask = random_case(2, 4, SIZE)
    spoiled = torch.where(mask[:, :, None, None, None], image, torch.full_like(image, float("nan")))
    with dense_path():
        assert torch.equal(network(image, mask), network(spoiled, mask))
        nothing = network(image, torch.zeros_like(mask))
    assert (nothing.argmax(1) == 0).all()


class NoQuestions(TorchFunctionMode):
    """Any value that would have to leave the device is an error."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in {"nonzero", "argwhere", "unique", "masked_select", "item", "tolist", "__bool__", "__int__"}:
            raise AssertionError(f"{name} asks for a value")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_no_mask_is_read_on_the_host(name: str) -> None:
    network = make(name).train()
    image, mask = random_case(2, 4, SIZE)
    with dense_path(), NoQuestions():
        features = network.prepare(network.encode(image, mask))
        network.decode(features, mask).logits.sum().backward()


@pytest.mark.parametrize("name", sorted(STEP))
@torch.no_grad()
def test_goldens_of_fused_path_and_students(name: str) -> None:
    expected = golden("backbones_train32.npz")
    network = with_formula_weights(STEP[name]()).double()
    mask = torch.from_numpy(expected["mask"])
    with dense_path():
        features = network.prepare(network.encode(formula_input(2, 4, 32).double(), torch.ones_like(mask)))
        logits = network.decode(features, mask).logits[..., 2::8, 2::8, 2::8]
        sample, modality = torch.nonzero(torch.ones_like(mask), as_tuple=True)
        students = network.decode_student(features, sample, modality, mask).logits
    np.testing.assert_allclose(logits, expected[f"{name}/logits"], atol=1e-6, rtol=0)
    students = students.unflatten(0, (2, 4))[..., 4::16, 4::16, 4::16]
    np.testing.assert_allclose(students, expected[f"{name}/students"], atol=2e-6, rtol=0)
