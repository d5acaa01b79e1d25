"""Lesion-wise scores: how many lesions are found, and how well those."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medmap_monai.metrics.edge_cases import Empty
from medmap_monai.metrics.region_scores import RegionScore, foreground_box
from medmap_monai.metrics.regions import Region, predicted_mask, region_mask

LESION_F1 = "lesion_f1"
LESION_PANOPTIC_DICE = "lesion_panoptic_dice"
LESION_UNITS = {LESION_F1: "1", LESION_PANOPTIC_DICE: "1"}


def lesion_scores(prediction: Tensor, reference: Tensor, regions: Sequence[Region]) -> list[RegionScore]:
    """Lesion-wise scores of one prediction through panoptica (Kofler et al., "Panoptica", arXiv 2312.02608).

    Lesions are the connected components of a region; a predicted one matches a reference one when their IoU is at
    least 0.5. ``lesion_f1`` = TP / (TP + FP/2 + FN/2), the recognition quality. ``lesion_panoptic_dice`` = that times
    the mean Dice of the matched lesions. Both are 1 where there is no lesion in either map, 0 where only one map has
    some.

    Args:
        prediction: class indices, (H, W) or (H, W, D).
        reference: same shape.
        regions: what to score.

    Raises:
        ImportError: panoptica is not installed; it comes with the extra ``lesions``.
        ValueError: when the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {list(prediction.shape)} and reference {list(reference.shape)} differ in shape")
    evaluator = _evaluator()
    box = foreground_box(prediction, reference)
    prediction, reference = torch.as_tensor(prediction)[box], torch.as_tensor(reference)[box]
    scores = []
    for region in regions:
        found, truth = predicted_mask(prediction, region).numpy(), region_mask(reference, region).numpy()
        empty = Empty.NONE
        if found.any() and truth.any():
            result = evaluator.evaluate(found.astype(np.uint8), truth.astype(np.uint8), verbose=False)["ungrouped"]
            f1 = float(result.rq)
            panoptic = f1 * float(result.sq_dsc) if result.tp else 0.0
        else:
            empty = Empty.REFERENCE if found.any() else Empty.PREDICTION if truth.any() else Empty.BOTH
            f1 = panoptic = 1.0 if empty is Empty.BOTH else 0.0
        scores.append(RegionScore(region.name, LESION_F1, f1, LESION_UNITS[LESION_F1], empty.value))
        scores.append(
            RegionScore(region.name, LESION_PANOPTIC_DICE, panoptic, LESION_UNITS[LESION_PANOPTIC_DICE], empty.value)
        )
    return scores


@cache
def _evaluator() -> Any:
    os.environ.setdefault("PANOPTICA_CITATION_REMINDER", "false")
    try:
        import panoptica
    except ImportError as error:
        raise ImportError(
            "lesion-wise scores need panoptica: install medmap-monai with the extra 'lesions' "
            f"(pip install 'medmap-monai[lesions]'); importing it gave: {error}"
        ) from error
    return panoptica.Panoptica_Evaluator(
        expected_input=panoptica.InputType.SEMANTIC,
        instance_approximator=panoptica.ConnectedComponentsInstanceApproximator(),
        instance_matcher=panoptica.NaiveThresholdMatching(),
        instance_metrics=[panoptica.Metric.DSC, panoptica.Metric.IOU],
        global_metrics=[],
        log_times=False,
        verbose=False,
    )
