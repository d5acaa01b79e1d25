"""Resampling between voxel grids, any affine included (oblique, sheared, flipped)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from monai.utils import look_up_option

_INTERPOLATORS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}


def resample_to_grid(
    volume: np.ndarray,
    affine: np.ndarray,
    shape: Sequence[int],
    target_affine: np.ndarray,
    interpolation: str = "linear",
    fill: float = 0.0,
) -> np.ndarray:
    """``volume`` (X, Y, Z) on another grid, by SimpleITK.

    The whole geometry is put in one voxel-to-voxel affine transform between two unit grids, since ITK's image
    direction admits rotations only.

    Args:
        volume: the moving volume.
        affine: its (4, 4) voxel-to-world matrix.
        shape: voxels of the target grid.
        target_affine: (4, 4) voxel-to-world matrix of the target grid.
        interpolation: ``linear`` or ``nearest``.
        fill: value outside the moving volume.

    Returns:
        array of ``shape`` with the type of ``volume``.
    """
    interpolator = look_up_option(interpolation, _INTERPOLATORS)
    to_moving = np.linalg.inv(np.asarray(affine, np.float64)) @ np.asarray(target_affine, np.float64)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(to_moving[:3, :3].ravel().tolist())
    transform.SetTranslation(to_moving[:3, 3].tolist())
    target = sitk.Image([int(n) for n in shape], sitk.sitkUInt8)  # spacing one, origin zero
    moving = sitk.GetImageFromArray(np.ascontiguousarray(volume.T))  # ITK's first axis is the array's last
    resampled = sitk.Resample(moving, target, transform, interpolator, float(fill))
    return np.ascontiguousarray(sitk.GetArrayFromImage(resampled).T.astype(volume.dtype, copy=False))
