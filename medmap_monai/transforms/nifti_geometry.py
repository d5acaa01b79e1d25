"""The geometry fields of a NIfTI header as one array, so that a prediction gets exactly the header it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch

# Raw fields, not the matrices that nibabel derives from them: a quaternion does not survive the way to a matrix and
# back bit for bit.
_FIELDS: tuple[tuple[str, int], ...] = (
    ("sizeof_hdr", 1),  # which version of the format: NIfTI-2 keeps geometry in float64
    ("qform_code", 1),
    ("sform_code", 1),
    ("xyzt_units", 1),
    ("pixdim", 8),
    ("quatern_b", 1),
    ("quatern_c", 1),
    ("quatern_d", 1),
    ("qoffset_x", 1),
    ("qoffset_y", 1),
    ("qoffset_z", 1),
    ("srow_x", 4),
    ("srow_y", 4),
    ("srow_z", 4),
)
_NIFTI2_HEADER = 540  # bytes
GEOMETRY_SIZE = sum(size for _, size in _FIELDS)


def pack_geometry(header: Any) -> np.ndarray:
    """The geometry fields of a NIfTI-1/2 header as float64 ``(GEOMETRY_SIZE,)``; every value is kept exactly."""
    return np.concatenate([np.atleast_1d(np.asarray(header[name], dtype=np.float64)) for name, _ in _FIELDS])


def label_image(
    labels: np.ndarray, affine: np.ndarray, geometry: Sequence[float] | np.ndarray | torch.Tensor | None
) -> nib.Nifti1Image | nib.Nifti2Image:
    """A NIfTI image of ``labels`` whose affine and geometry codes are those of the file that ``geometry`` came from.

    Args:
        labels: integer array (X, Y, Z).
        affine: (4, 4) voxel-to-RAS matrix in mm; used as it is when ``geometry`` is None.
        geometry: from :func:`pack_geometry`, or None.
    """
    if geometry is None:
        image = nib.Nifti1Image(labels, np.asarray(affine, dtype=np.float64), dtype=labels.dtype)
        image.header.set_xyzt_units("mm")
        return image
    packed = np.asarray(geometry, dtype=np.float64).ravel()
    if packed.size != GEOMETRY_SIZE:
        raise ValueError(f"NIfTI geometry holds {packed.size} numbers, {GEOMETRY_SIZE} are expected")
    kind = nib.Nifti2Image if packed[0] == _NIFTI2_HEADER else nib.Nifti1Image
    header = kind.header_class()
    header.set_data_dtype(labels.dtype)
    header.set_data_shape(labels.shape)
    start = 0
    for name, size in _FIELDS:
        header[name] = packed[start] if size == 1 else packed[start : start + size]
        start += size
    # with affine=None nibabel takes geometry from the header as it stands and rewrites nothing
    return kind(labels, None, header=header)
