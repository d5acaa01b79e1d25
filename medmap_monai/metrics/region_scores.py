"""Dice and HD95 of every region of one segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.metrics import compute_dice
from torch import Tensor

from medmap_monai.metrics.edge_cases import EdgeCases, Empty, grid_diagonal
from medmap_monai.metrics.hausdorff import hausdorff95
from medmap_monai.metrics.regions import Region, predicted_mask, region_mask

DICE = "dice"
HD95 = "hd95"
#: metric -> unit as it stands in result files; Dice is a fraction of 1
METRIC_UNITS = {DICE: "1", HD95: "mm"}


class RegionScore(NamedTuple):
    """One number: ``value`` in ``unit`` of ``metric`` for ``region``; ``empty`` says which mask was empty."""

    region: str
    metric: str
    value: float
    unit: str
    empty: str


def region_scores(
    prediction: Tensor,
    reference: Tensor,
    regions: Sequence[Region],
    spacing: Sequence[float],
    edge_cases: EdgeCases | None = None,
    diagonal: float | None = None,
) -> list[RegionScore]:
    """Scores of one prediction, region by region, Dice before HD95.

    Both maps are cut to the box that holds their foreground first; neither metric changes by it.

    Args:
        prediction: class indices, (H, W) or (H, W, D).
        reference: same shape.
        regions: what to score.
        spacing: mm per voxel along each axis.
        edge_cases: scores of empty regions.
        diagonal: mm, of the image grid; that of the maps when None, which is smaller when they come from a crop.

    Raises:
        ValueError: when the shapes differ or spacing has the wrong number of entries.
    """
    prediction, reference = torch.as_tensor(prediction), torch.as_tensor(reference)
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {list(prediction.shape)} and reference {list(reference.shape)} differ in shape")
    policy = edge_cases or EdgeCases()
    if diagonal is None:
        diagonal = grid_diagonal(tuple(prediction.shape), spacing)
    box = foreground_box(prediction, reference)
    prediction, reference = prediction[box], reference[box]
    scores = []
    known: dict[tuple[tuple[int, ...], bool], tuple[float, float, Empty]] = {}
    for region in regions:
        found, truth = predicted_mask(prediction, region), region_mask(reference, region)
        key = (region.classes, bool(found.any()))  # a post-processed region mostly equals its original
        if key not in known:
            known[key] = _dice_and_distance(found, truth, spacing, policy, diagonal)
        dice, distance, empty = known[key]
        scores.append(RegionScore(region.name, DICE, dice, METRIC_UNITS[DICE], empty.value))
        scores.append(RegionScore(region.name, HD95, distance, METRIC_UNITS[HD95], empty.value))
    return scores


def foreground_box(*maps: Tensor) -> tuple[slice, ...]:
    """The smallest box that holds every non-zero voxel of ``maps`` (equal shapes); one voxel when there is none."""
    union = maps[0] != 0
    for other in maps[1:]:
        union = union | (other != 0)
    box = []
    for axis in range(union.ndim):  # cutting as it goes: later axes look at less
        hits = torch.nonzero(union.movedim(axis, 0).flatten(1).any(dim=1)).flatten()
        found = slice(int(hits[0]), int(hits[-1]) + 1) if hits.numel() else slice(0, 1)
        box.append(found)
        union = union.narrow(axis, found.start, found.stop - found.start)
    return tuple(box)


def _dice_and_distance(
    found: Tensor, truth: Tensor, spacing: Sequence[float], policy: EdgeCases, diagonal: float
) -> tuple[float, float, Empty]:
    empty = _which_empty(found, truth)
    if empty is not Empty.NONE:
        return policy.dice(empty), policy.hd95(empty, diagonal), empty
    dice = float(compute_dice(found[None, None].float(), truth[None, None].float(), ignore_empty=False))
    return dice, hausdorff95(found, truth, spacing), empty


def _which_empty(found: Tensor, truth: Tensor) -> Empty:
    has_found, has_truth = bool(found.any()), bool(truth.any())
    if has_found and has_truth:
        return Empty.NONE
    if has_found:
        return Empty.REFERENCE
    return Empty.PREDICTION if has_truth else Empty.BOTH
