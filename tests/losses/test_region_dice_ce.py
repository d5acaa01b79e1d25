from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss

from medmap_monai.losses.region_dice_ce import RegionDiceCELoss

WEIGHT = (1.0, 1.5, 1.0, 2.0)
MONAI = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": True}


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 5, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    return logits, torch.randint(0, 4, (2, 1, 6, 5, 4), generator=rng).to(torch.uint8)


def test_without_regions_it_is_monais_loss_and_gradient(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, label = batch
    expected = DiceCELoss(**MONAI, weight=torch.tensor(WEIGHT, dtype=torch.float64))(logits, label)
    found = RegionDiceCELoss(WEIGHT)(logits, label)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits))


def test_a_region_is_judged_by_the_sum_of_its_classes(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, label = batch
    with torch.no_grad():
        extra = RegionDiceCELoss(WEIGHT, [[1, 2, 3], [1, 3]])(logits, label) - RegionDiceCELoss(WEIGHT)(logits, label)
        share = logits.softmax(1)
        whole = DiceLoss(batch=True)(share[:, 1:].sum(1, True), label > 0)
        core = DiceLoss(batch=True)(share[:, [1, 3]].sum(1, True), (label == 1) | (label == 3))
    torch.testing.assert_close(extra, (whole + core) / 2)


def test_half_precision_is_summed_in_full(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, label = batch
    half = logits.detach().half()
    assert torch.equal(RegionDiceCELoss(WEIGHT)(half, label), RegionDiceCELoss(WEIGHT)(half.float(), label))


def test_a_class_without_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"classes \[4\].*0\.\.3"):
        RegionDiceCELoss(WEIGHT, [[1, 4]])
