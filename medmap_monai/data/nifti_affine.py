"""The one rule by which a NIfTI header says where its voxels lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError

_CODES = range(6)  # the standard knows 0 (not coded) to 5
_VOXEL_EDGE = (1e-3, 200.0)  # mm; microscopes lie below 0.01, the thickest slices of localisers at 50
_FARTHEST = 1e5  # mm from the origin; scanners stay below 1e4
_LEAST_VOLUME = 1e-3  # of the box with the same edges: less is a plane, not a grid
_WRONG_UNITS = {1: "metres", 3: "micrometres"}


class GeometryError(ValueError):
    """A header that does not say where its voxels lie; the message does not name the file."""


def nifti_affine(header: Any) -> np.ndarray:
    """Voxel-to-RAS matrix (4, 4) in mm of a NIfTI-1/2 header: nibabel's rule, and nothing is rewritten.

    The sform where it is coded, else the qform where it is coded, else ``pixdim`` alone. This matrix is used for
    reading, for volumes and distances in mm, and for writing, and it equals ``nibabel.load(file).affine``.

    Raises:
        GeometryError: the matrix that counts has entries that are not finite or are huge, or is singular; unknown
            codes; units other than mm.
    """
    codes = {form: int(header[f"{form}_code"]) for form in ("sform", "qform")}
    for form, code in codes.items():
        if code not in _CODES:
            raise GeometryError(f"has the {form}_code {code}; allowed are 0 to 5")
    name = next((form for form, code in codes.items() if code), "pixdim")
    units = int(header["xyzt_units"]) & 7
    if units in _WRONG_UNITS:
        raise GeometryError(f"says that its unit of length is {_WRONG_UNITS[units]}; convert it to mm")
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise GeometryError(f"has an invalid {name}: {error}") from error
    fault = _fault(affine)
    if fault:
        raise GeometryError(f"has an invalid {name} ({fault}): {affine[:3].tolist()}")
    return affine


def _fault(affine: np.ndarray) -> str | None:
    if not np.isfinite(affine).all():
        return "entries that are not finite"
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    least, most = _VOXEL_EDGE
    if edges.min() < least or edges.max() > most:
        return f"voxel edges of {', '.join(f'{edge:g}' for edge in edges)} mm, possible are {least:g} to {most:g}"
    if abs(float(np.linalg.det(affine[:3, :3] / edges))) < _LEAST_VOLUME:
        return "its axes lie in one plane"
    if np.abs(affine[:3, 3]).max() > _FARTHEST:
        return f"more than {_FARTHEST:g} mm from the origin"
    return None
