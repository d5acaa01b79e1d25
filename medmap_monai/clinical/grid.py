"""The grid on which all sequences of a study meet, and what is a head or a brain on it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import nibabel as nib
import numpy as np

from medmap_monai.clinical.skull_strip import BRAIN_ML
from medmap_monai.clinical.volume import Volume

SPACING_MM = 1.0
ORIENTATION = "LPS"  # of the BraTS editions; networks turn what they load to the orientation they were trained with
_MARGIN_MM = 6.0
_EDGE_SHARE = 0.02  # of the outermost voxels that may be tissue in an image without skull: brains cut at the top


def isotropic_grid(volume: Volume, orientation: str = ORIENTATION, spacing: float = SPACING_MM) -> Volume:
    """An empty volume that covers ``volume``, with its axes along those of the world.

    Args:
        volume: what is to be covered, oblique or not.
        orientation: three of ``L/R``, ``P/A``, ``I/S``: where the axes point to, in nibabel's words.
        spacing: voxel size in mm.

    Raises:
        ValueError: the orientation is none.
    """
    axes = nib.orientations.axcodes2ornt(tuple(orientation))
    if len(orientation) != 3 or np.isnan(axes).any() or len(set(axes[:, 0])) != 3:
        raise ValueError(
            f"orientation {orientation!r} is none; three of L/R, P/A and I/S are needed, such as LPS or RAS"
        )
    corners = np.array([[*c, 1.0] for c in product(*((-0.5, n - 0.5) for n in volume.data.shape))])
    world = (corners @ volume.affine.T)[:, :3]
    low, high = world.min(axis=0), world.max(axis=0)
    affine = np.eye(4)
    affine[:3, :3] = 0
    shape = [1, 1, 1]
    for axis, (world_axis, sign) in enumerate(axes):
        along = int(world_axis)
        count = int(np.ceil((high[along] - low[along]) / spacing))
        shape[axis] = count
        affine[along, axis] = sign * spacing
        first = low[along] if sign > 0 else high[along]
        affine[along, 3] = np.round(first + sign * spacing / 2, 3)
    return Volume(np.zeros(tuple(shape), np.float32), affine)


def crop_to(volume: Volume, mask: np.ndarray, margin: float = _MARGIN_MM) -> tuple[slice, slice, slice]:
    """The box around ``mask`` with a margin in mm, cut at the volume's edges."""
    box = []
    for axis in range(3):
        seen = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        more = int(np.ceil(margin / volume.spacing[axis]))
        box.append(slice(max(0, int(seen[0]) - more), min(mask.shape[axis], int(seen[-1]) + more + 1)))
    return box[0], box[1], box[2]


def cropped(volume: Volume, box: Sequence[slice]) -> Volume:
    """The part of ``volume`` in ``box``, at its place in space."""
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [*(s.start for s in box), 1.0])[:3]
    return Volume(np.ascontiguousarray(volume.data[tuple(box)]), affine)


def foreground(volume: Volume) -> np.ndarray:
    """bool (X, Y, Z): voxels that differ from the value in the corners, where there is one; all of them otherwise."""
    corners = volume.data[:: volume.data.shape[0] - 1, :: volume.data.shape[1] - 1, :: volume.data.shape[2] - 1]
    values, counts = np.unique(corners, return_counts=True)
    background = values[counts.argmax()]
    return np.asarray(volume.data != background)


def is_without_skull(volume: Volume) -> bool:
    """Whether a brain alone is shown: constant background reaches the edges, and no more than a brain is left."""
    shown = foreground(volume)
    edges = [np.take(shown, index, axis=axis) for axis in range(3) for index in (0, -1)]
    at_edge = sum(int(edge.sum()) for edge in edges) / sum(edge.size for edge in edges)
    millilitres = float(shown.sum()) * volume.voxel_ml
    return at_edge <= _EDGE_SHARE and 0 < millilitres <= BRAIN_ML[1]


def is_prepared(volumes: Sequence[Volume]) -> bool:
    """Whether nothing is left to do: one isotropic grid of about 1 mm, no skull, brains that lie upon each other."""
    first = volumes[0]
    if any(abs(step - SPACING_MM) > 0.02 for step in first.spacing):
        return False
    if not all(volume.same_grid(first) and is_without_skull(volume) for volume in volumes):
        return False
    shown = [foreground(volume) for volume in volumes]
    return all(2 * (s & shown[0]).sum() / (s.sum() + shown[0].sum()) >= 0.9 for s in shown)
