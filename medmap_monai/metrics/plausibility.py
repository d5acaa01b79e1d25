"""Whether a segmentation can be what it says: rules of thumb that flag a map for a person to look at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from medmap_monai.utils.connected_parts import connected_parts
from medmap_monai.utils.voxel_volume import voxel_ml


class Limit(NamedTuple):
    """One rule: a measure above ``limit`` is flagged with ``text``."""

    limit: float
    text: str
    reason: str


#: measure -> what of it is still plausible, and why. Rules of thumb of this package ("ours"), not of a publication.
LIMITS: dict[str, Limit] = {
    "volume_share": Limit(
        0.35,
        "{value:.0%} of what the images show is segmented (plausible: up to {limit:.0%})",
        "the largest gliomas with their oedema take about 350 ml of a brain of 1.3 l",
    ),
    "edge_share": Limit(
        0.4,
        "{value:.0%} of the segmentation lies in the outermost 2 mm of what the images show (plausible: up to "
        "{limit:.0%})",
        "a tumour reaches the surface with one side; a rim of bright voxels lies there altogether",
    ),
    "components": Limit(
        40,
        "{value:.0f} separate parts above 0.05 ml (plausible: up to {limit:.0f})",
        "multifocal disease has a few parts; noise, motion or a wrong modality gives hundreds",
    ),
    "scattered": Limit(
        0.5,
        "{value:.0%} of the segmentation lies in parts below 0.05 ml (plausible: up to {limit:.0%})",
        "lesions are connected; voxels strewn over the brain are noise",
    ),
}
_EDGE_MM = 2.0
_LEAST_PART_ML = 0.05
_LEAST_ML = 0.5  # shares of less are shares of a handful of voxels


def plausibility_flags(label_map: ArrayLike, shown: ArrayLike, affine: ArrayLike) -> list[str]:
    """What is implausible about a segmentation; empty where nothing is.

    Args:
        label_map: class indices (X, Y, Z) or (1, X, Y, Z); 0 is background.
        shown: bool, the same shape; where any modality that was used shows something (the brain).
        affine: (4, 4) voxel-to-world matrix in mm.

    Returns:
        one sentence per measure of :data:`LIMITS` that is exceeded, and one where nothing is segmented at all.
    """
    segmented = np.asarray(label_map).squeeze() != 0
    brain = np.asarray(shown).squeeze() != 0
    if segmented.shape != brain.shape:
        raise ValueError(f"label map has shape {segmented.shape}, the shown voxels have {brain.shape}")
    if not segmented.any():
        return ["nothing is segmented"]
    edges = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    voxel = voxel_ml(affine)
    if segmented.sum() * voxel < _LEAST_ML:
        return []
    parts, scattered = _parts(segmented, voxel)
    measures = {
        "volume_share": float(segmented.sum() / max(int(brain.sum()), 1)),
        "edge_share": _edge_share(segmented, brain, edges),
        "components": float(parts),
        "scattered": scattered,
    }
    return [
        limit.text.format(value=measures[name], limit=limit.limit)
        for name, limit in LIMITS.items()
        if measures[name] > limit.limit
    ]


def _edge_share(segmented: NDArray[np.bool_], brain: NDArray[np.bool_], edges: NDArray[np.float64]) -> float:
    """Share of the segmentation within :data:`_EDGE_MM` of the brain's outer surface (holes inside do not count)."""
    padded = np.pad(brain, 1)  # so that a brain that touches the volume's end has a surface there too
    dark, _ = ndimage.label(~padded)
    outside = dark == dark[0, 0, 0]
    where = np.pad(segmented, 1)
    (box,) = ndimage.find_objects(where.astype(np.uint8))
    margin = np.ceil(_EDGE_MM / edges).astype(int)
    near = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(box, margin, strict=True))
    if not outside[near].any():
        return 0.0
    depth = ndimage.distance_transform_edt(~outside[near], sampling=edges)
    return float((depth[where[near]] <= _EDGE_MM).sum() / segmented.sum())


def _parts(segmented: NDArray[np.bool_], voxel_ml: float) -> tuple[int, float]:
    """Number of connected parts that are not tiny, and the share of the segmentation in those that are."""
    _, sizes = connected_parts(segmented)
    large = sizes * voxel_ml >= _LEAST_PART_ML
    return int(large.sum()), float(sizes[~large].sum() / sizes.sum())
