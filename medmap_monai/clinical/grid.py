"""The grid on which all sequences of a study meet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import nibabel as nib
import numpy as np

from medmap_monai.clinical.volume import Volume
from medmap_monai.transforms.background import foreground, is_brain_alone

SPACING_MM = 1.0
ORIENTATION = "LPS"  # of the BraTS editions; networks turn what they load to the orientation they were trained with
_MARGIN_MM = 6.0
_FIELD_MM = (80.0, 600.0)  # longest side of an image of a head: an infant's, and more than the bore of a scanner


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


def field_problem(volume: Volume) -> str:
    """Why the size of the field of view (mm) is no head's; an empty text when it is.

    A header in other units, or without voxel sizes, would otherwise be searched for a head of metres.
    """
    extent = np.asarray(volume.data.shape) * np.asarray(volume.spacing)
    if _FIELD_MM[0] <= float(extent.max()) <= _FIELD_MM[1]:
        return ""
    sides = " x ".join(f"{side:.4g}" for side in extent)
    return f"it is {sides} mm large by its header, which no image of a head is: is the voxel size right?"


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


def is_prepared(volumes: Sequence[Volume]) -> bool:
    """Whether nothing is left to do: one isotropic grid of about 1 mm, no skull, brains that lie upon each other."""
    first = volumes[0]
    if any(abs(step - SPACING_MM) > 0.02 for step in first.spacing):
        return False
    if not all(volume.same_grid(first) and is_brain_alone(volume.data, volume.affine) for volume in volumes):
        return False
    shown = [foreground(volume.data) for volume in volumes]
    return all(2 * (s & shown[0]).sum() / (s.sum() + shown[0].sum()) >= 0.9 for s in shown)
