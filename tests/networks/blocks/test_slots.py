"""Slots: decoding only what is there gives what zero-filling gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medmap_monai.networks.base import zero_absent
from medmap_monai.networks.blocks.backend import stack_modalities, to_preferred_layout
from medmap_monai.networks.blocks.slots import convolve_slots, needed, pick_modality, select_modalities, sum_modalities

MASKS = {
    "all": [[True, True, True]],
    "two of three": [[True, False, True]],
    "one": [[False, False, True]],
    "none": [[False, False, False]],
    "one each": [[False, True, False], [True, False, False], [False, True, False]],
    "ragged": [[True, True, False], [False, False, True], [True, True, True]],
    "with an empty row": [[True, False, False], [False, False, False]],
}


def features(last: bool) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn((3, 2, 3, 4, 5), generator=generator, dtype=torch.float64) for _ in range(3)]
    return stack_modalities(
        [to_preferred_layout(m) if last else m for m in maps],
        to_preferred_layout(maps[0]) if last else maps[0],
    )


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", sorted(MASKS))
def test_slots_and_sums_equal_zero_filling(name: str, last: bool) -> None:
    mask = torch.tensor(MASKS[name])
    rows = torch.tensor([2, 0, 2])[: len(mask)]
    filled = zero_absent(features(last)[rows], mask)
    weight = torch.randn(4, 6, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    bias = torch.arange(4.0, dtype=torch.float64)
    expected = F.conv3d(filled.flatten(1, 2), weight, bias)
    for poison in (False, True):
        values = features(last)
        if poison:  # what no row may see
            hidden = torch.ones(3, 3, dtype=torch.bool)
            for row, allowed in zip(rows, mask, strict=True):
                hidden[row] &= ~allowed
            values[hidden] = float("nan")
        if poison and name in ("none", "with an empty row"):
            continue  # a row without modalities is replaced by background later on
        slots, placement = select_modalities(values, mask, None, rows)
        torch.testing.assert_close(convolve_slots(slots, placement, weight, bias), expected)
        torch.testing.assert_close(sum_modalities(list(values.unbind(1)), mask, rows), filled.sum(1))
        factors = torch.rand(len(mask), 3, 1, 3, 4, 5, dtype=torch.float64)
        torch.testing.assert_close(
            sum_modalities(list(values.unbind(1)), mask, rows, factors), (filled * factors).sum(1)
        )


@pytest.mark.parametrize(("name", "slots"), [("all", 3), ("two of three", 2), ("one", 1), ("one each", 1)])
def test_absent_modalities_take_no_slot(name: str, slots: int) -> None:
    mask = torch.tensor(MASKS[name])
    chosen, placement = select_modalities(features(True)[: len(mask)], mask)
    assert chosen.shape[1] == slots
    assert torch.equal(placement.sum(1).bool(), mask)


@pytest.mark.parametrize("last", [False, True])
def test_pick_modality(last: bool) -> None:
    values = features(last)
    rows, modality = torch.tensor([0, 2, 2]), torch.tensor([1, 0, 2])
    assert torch.equal(pick_modality(values, rows, modality), values[rows, modality])


def test_gradients_reach_only_what_is_seen() -> None:
    values = features(True).requires_grad_(True)
    mask = torch.tensor([[True, False, True]])
    slots, placement = select_modalities(values[:1], mask)
    convolve_slots(slots, placement, torch.ones(1, 6, 1, 1, 1, dtype=torch.float64), None).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad[0].flatten(1).any(1), mask[0])
    assert not values.grad[1:].any()


def test_a_modality_that_was_left_out_is_no_trouble() -> None:
    parts = [torch.ones(1, 2, 3, 3), torch.zeros(1, 0), torch.ones(1, 2, 3, 3)]
    for middle in (False, True):
        mask = torch.tensor([[True, middle, True]])
        assert torch.equal(sum_modalities(parts, mask), torch.full((1, 2, 3, 3), 2.0))
    assert not sum_modalities(parts, torch.tensor([[False, False, False]])).any()


def test_what_decoders_need_of_each_sample() -> None:
    mask = torch.tensor([[True, False], [False, False], [False, True]])
    assert torch.equal(needed(mask, None, 3), mask)
    by_sample = needed(mask, torch.tensor([1, 1, 1]), 2)
    assert torch.equal(by_sample, torch.tensor([[False, False], [True, True]]))
    assert torch.equal(needed(mask[:, None], None, 3), mask)
