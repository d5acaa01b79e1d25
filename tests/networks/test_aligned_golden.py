"""AlignedNetwork and AlignmentLoss against numbers of the published fragment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medmap_monai.losses.alignment import AlignmentLoss
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityFeatures, ModalityNetwork

pytestmark = pytest.mark.golden

COMMITTED = Path(__file__).parents[1] / "golden" / "medmap.npz"
COMPLETE = Path(__file__).parents[2].parent / "shared" / "golden" / "medmap.npz"
ARRAYS = np.load(COMPLETE if COMPLETE.is_file() else COMMITTED)


def golden(key: str) -> Tensor:
    return torch.from_numpy(ARRAYS[key])


def features_of(requires_grad: bool = False) -> tuple[Tensor, ModalityFeatures]:
    """The golden features, modalities first, and the same as a pyramid of one level."""
    stored = golden("in/features").clone().requires_grad_(requires_grad)
    maps = stored.transpose(0, 1)
    return stored, ModalityFeatures([maps], None, torch.ones(1, 4, dtype=torch.bool))


def published(weights: str, **kwargs: object) -> AlignedNetwork:
    nothing = ModalityNetwork(3, 4, 4, 1, [])
    net = AlignedNetwork(nothing, levels=[0], training_source="full", **kwargs)  # type: ignore[arg-type]
    with torch.no_grad():
        net.mixture.copy_(golden(f"in/{weights}").reshape(1, 4))
    return net


def mask_of(bits: str) -> Tensor:
    return torch.tensor([[bit == "1" for bit in bits]])


def keys(stage: str, name: str) -> list[tuple[str, str]]:
    """(weights, mask) for which the file holds ``name``."""
    found = [key.split("/") for key in ARRAYS if key.endswith(f"/{name}") and f"/{stage}/" in key]
    return [(parts[1], parts[3]) for parts in found if len(parts) == 5]


def test_the_committed_file_is_part_of_the_complete_one() -> None:
    if not COMPLETE.is_file():
        pytest.skip("the complete file is not on this machine")
    complete, committed = np.load(COMPLETE), np.load(COMMITTED)
    assert all(np.array_equal(complete[key], committed[key]) for key in committed)


@pytest.mark.parametrize("weights", ["w_init_ones", "w_mixed"])
def test_alignment_loss_and_its_gradients(weights: str) -> None:
    net = published(weights).train()
    stored, features = features_of(requires_grad=True)
    everything = mask_of("1111")
    maps, anchor = net.anchors(features, everything)[0]
    loss = AlignmentLoss()(maps, anchor, everything)
    loss.backward()
    torch.testing.assert_close(loss.detach(), golden(f"out/{weights}/train/align_loss"), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        net.mixture.grad, golden(f"out/{weights}/train/grad_align_wrt_w").reshape(1, 4), rtol=1e-4, atol=1e-7
    )
    if f"out/{weights}/train/grad_align_wrt_features" in ARRAYS:
        expected = golden(f"out/{weights}/train/grad_align_wrt_features")
        torch.testing.assert_close(stored.grad, expected, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(anchor.mean, golden(f"out/{weights}/train/p_mix"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("weights", "bits"), keys("train", "features"))
def test_replacement_in_training(weights: str, bits: str) -> None:
    net = published(weights).train()
    filled = net.fill(features_of()[1], mask_of(bits)).pyramid[0]
    expected = golden(f"out/{weights}/train/{bits}/features").transpose(0, 1)
    torch.testing.assert_close(filled, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("weights", "bits"), keys("infer", "p_mix"))
def test_anchor_at_inference(weights: str, bits: str) -> None:
    anchor = published(weights).eval().anchor_map(features_of()[1].pyramid[0], mask_of(bits), 0)
    torch.testing.assert_close(anchor, golden(f"out/{weights}/infer/{bits}/p_mix"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("weights", "bits"), keys("infer", "features"))
def test_replacement_at_inference_with_the_published_scale(weights: str, bits: str) -> None:
    net = published(weights, inference_scale="weight").eval()
    filled = net.fill(features_of()[1], mask_of(bits)).pyramid[0]
    expected = golden(f"out/{weights}/infer/{bits}/features").transpose(0, 1)
    torch.testing.assert_close(filled, expected, rtol=1e-5, atol=1e-6)


def test_masks_act_per_sample() -> None:
    """The fragment reads the mask of sample 0 for the whole batch; here each sample equals its own run."""
    net = published("w_mixed").eval()
    maps = features_of()[1].pyramid[0]
    batch = ModalityFeatures([torch.cat([maps, maps.flip(2)])])
    masks = torch.cat([mask_of("1010"), mask_of("0111")])
    filled = net.fill(batch, masks).pyramid[0]
    for row in range(2):
        alone = net.fill(ModalityFeatures([batch.pyramid[0][row : row + 1]]), masks[row : row + 1])
        assert torch.equal(filled[row : row + 1], alone.pyramid[0])
