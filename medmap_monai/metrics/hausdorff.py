"""The 95th percentile of the symmetric surface distance, in the convention of the published tables."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from monai.metrics.utils import get_edge_surface_distance
from torch import Tensor

# MONAI 1.5 calls its own function with an argument that it has deprecated
warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges:always_return_as_numpy", FutureWarning)


def hausdorff95(prediction: Tensor, reference: Tensor, spacing: Sequence[float], percentile: float = 95.0) -> float:
    """HD95 in mm of two non-empty masks.

    MONAI finds the surfaces (a mask without its erosion by the 6-neighbour element; voxels at the border of the
    volume belong to the surface) and the distances between them. The percentile is ours: it is taken over the
    distances of both directions *pooled*, as medpy and hence the published tables do, with linear interpolation.
    ``monai.metrics.compute_hausdorff_distance`` takes the larger of the two directed percentiles instead, which is
    larger as a rule.

    Args:
        prediction: bool (H, W) or (H, W, D), not empty.
        reference: same shape, not empty.
        spacing: mm per voxel along each axis.
        percentile: of the pooled distances, 0 to 100.

    Raises:
        ValueError: when shapes differ, spacing does not fit, or a mask is empty (see ``EdgeCases`` for those).
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {list(prediction.shape)} and reference {list(reference.shape)} differ in shape")
    if len(spacing) != prediction.ndim:
        raise ValueError(f"spacing {list(spacing)} must have one entry for each of the {prediction.ndim} axes")
    if not (bool(prediction.any()) and bool(reference.any())):
        raise ValueError("HD95 of an empty mask is declared in EdgeCases, not computed")
    _, distances, _ = get_edge_surface_distance(
        prediction, reference, spacing=[float(s) for s in spacing], symmetric=True, warn_empty=False
    )
    pooled = np.concatenate([np.asarray(d.detach().cpu(), dtype=np.float64) for d in distances])
    return float(np.percentile(pooled, percentile))
