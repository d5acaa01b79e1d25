"""Masks that no loss is defined for are refused, with the rows or cases that have them."""

from __future__ import annotations

import pytest
import torch

from medmap_monai.methods.knowledge_distillation import TeacherTraining
from medmap_monai.methods.masks import check_masks
from medmap_monai.networks.unet import ModalityUNet

PRESENT = torch.tensor([[True, True], [True, False], [True, True]])


@pytest.mark.parametrize(
    ("visible", "cases", "message"),
    [
        ([[1, 1], [0, 1], [1, 0]], None, r"does not have in batch rows \[1\]"),
        ([[0, 0], [1, 0], [0, 0]], None, r"without any visible modality: batch rows \[0, 2\]"),
        ([[1, 1], [1, 1], [0, 0]], ["a", "b", "c"], r"in cases \['b'\]; samples .*: cases \['c'\]"),
    ],
)
def test_masks_that_do_not_fit_are_named(visible: list[list[int]], cases: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_masks(torch.tensor(visible, dtype=torch.bool), PRESENT, cases)


def test_shapes_must_be_equal() -> None:
    with pytest.raises(ValueError, match=r"got \[2, 2\] and \[3, 2\]"):
        check_masks(PRESENT[:2], PRESENT)
    check_masks(PRESENT, PRESENT)


def test_every_method_refuses_them_before_it_computes() -> None:
    method = TeacherTraining(ModalityUNet(2, 2, 2, channels=(4, 8), deep_supervision=0), lambda a, b: a.mean())
    image, label = torch.rand(3, 2, 4, 4), torch.zeros(3, 1, 4, 4)
    for visible in (torch.zeros_like(PRESENT), torch.ones_like(PRESENT)):
        with pytest.raises(ValueError, match="batch rows"):
            method(image, visible, PRESENT, label)
    output = method(image, PRESENT, PRESENT, label)
    output.losses["fused"].backward()
    assert all(p.grad is not None for p in method.parameters())  # the encoder that row 1 lacks as well
