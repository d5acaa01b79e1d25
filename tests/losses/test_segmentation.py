from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss
from torch import Tensor

from medmap_monai.losses.deep_supervision import deep_supervision_loss
from medmap_monai.losses.label_maps import label_maps
from medmap_monai.losses.segmentation import WeightedCEDiceLoss, soft_dice, weighted_cross_entropy

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "passion_losses.npz")
CASES = ("all", "absent3_all", "absent3_one", "background_only")
TERMS: dict[str, dict[str, Any]] = {"wce": {"dice_weight": 0.0}, "dice": {"ce_weight": 0.0}}


def golden(key: str) -> Tensor:
    return torch.from_numpy(GOLDEN[key])


def label_of(case: str) -> Tensor:
    return golden(f"in/labels_{case}")[:, None]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("term", TERMS)
def test_values_per_sample_are_the_published_ones(case: str, term: str) -> None:
    loss = WeightedCEDiceLoss(reduction="none", **TERMS[term])
    label = label_of(case)
    torch.testing.assert_close(loss(golden("in/logits_s"), label), golden(f"out/{case}/{term}_bs")[:, 0])
    low = loss(golden("in/logits_s_low"), label)  # up-sampled as probabilities
    torch.testing.assert_close(low, golden(f"out/{case}/{term}_bs_low_up2")[:, 0])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("term", TERMS)
def test_batch_form_and_its_gradient_are_the_published_ones(case: str, term: str) -> None:
    logits = golden("in/logits_s").clone().requires_grad_()
    value = WeightedCEDiceLoss(batch=True, **TERMS[term])(logits, label_of(case))
    value.backward()
    torch.testing.assert_close(value.detach(), golden(f"out/{case}/{term}_mean").reshape(()))
    assert logits.grad is not None
    norm = golden(f"out/{case}/{term}_mean_gradnorm_wrt_logits").reshape(())
    torch.testing.assert_close(logits.grad.norm(), norm, rtol=1e-5, atol=1e-9)


def test_probabilities_and_logits_agree_and_terms_add_up() -> None:
    logits, label = golden("in/logits_s"), label_of("all")
    both = WeightedCEDiceLoss()(logits, label)
    from_maps = WeightedCEDiceLoss(probabilities=True)(logits.softmax(1), label)
    torch.testing.assert_close(both, from_maps)
    parts = [WeightedCEDiceLoss(**kwargs)(logits, label) for kwargs in TERMS.values()]
    torch.testing.assert_close(both, parts[0] + parts[1])
    torch.testing.assert_close(WeightedCEDiceLoss(reduction="sum")(logits, label), 2 * both)
    maps = label_maps(label, 4)
    p = logits.softmax(1).flatten(2)
    torch.testing.assert_close((weighted_cross_entropy(p, maps) + soft_dice(p, maps)).mean(), both)


def test_dice_differs_from_monai_only_by_absent_classes() -> None:
    """Where every class is there, the published Dice is MONAI's without smoothing in the numerator."""
    logits, label = golden("in/logits_s"), label_of("all")
    theirs = DiceLoss(to_onehot_y=True, softmax=True, smooth_nr=0.0, smooth_dr=1e-7)(logits, label)
    torch.testing.assert_close(WeightedCEDiceLoss(ce_weight=0.0)(logits, label), theirs)


@given(classes=st.integers(2, 5), background_only=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_perfect_prediction_costs_the_share_of_absent_classes(classes: int, background_only: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 1 if background_only else classes, (2, 1, 4, 4), generator=generator)
    maps = label_maps(label, classes)
    perfect = maps.one_hot.clone().requires_grad_()
    dice, entropy = soft_dice(perfect, maps), weighted_cross_entropy(perfect, maps)
    absent = (maps.counts == 0).sum(1) / classes
    torch.testing.assert_close(dice.detach(), absent, atol=1e-5, rtol=0)
    assert entropy.abs().max() == 0
    (dice + entropy).sum().backward()
    assert perfect.grad is not None
    assert perfect.grad.isfinite().all()


def test_a_voxel_below_the_clamp_gives_no_cross_entropy_gradient() -> None:
    p = torch.tensor([[[0.001, 0.5], [0.999, 0.5]]], requires_grad=True)
    weighted_cross_entropy(p, label_maps(torch.tensor([[[0, 1]]]), 2)).sum().backward()
    assert p.grad is not None
    assert p.grad[0, 0, 0] == 0
    assert p.grad[0, 1, 1] < 0


def test_works_as_the_loss_of_deep_supervision_in_half_precision() -> None:
    label = label_of("all")
    logits = golden("in/logits_s").to(torch.bfloat16).requires_grad_()
    value = deep_supervision_loss(WeightedCEDiceLoss(), [logits, golden("in/logits_s_low")], label)
    assert value.dtype == torch.float32
    value.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.full((1, 1, 2, 2), 4), r"classes 4\.\.4; the prediction has 3: 0\.\.2"),
        (torch.full((1, 1, 2, 2), -1), r"classes -1\.\.-1"),
        (torch.zeros(1, 3, 2, 2), r"\(B, 1, ...\), got shape \[1, 3, 2, 2\]"),
    ],
)
def test_wrong_labels_are_named(label: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedCEDiceLoss()(torch.zeros(1, 3, 2, 2), label)


def test_unknown_reduction_lists_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="mean"):
        WeightedCEDiceLoss(reduction="median")
