"""What is background in an image: zero, another constant, or nothing, as in a head that still has its skull."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medmap_monai.utils.voxel_volume import voxel_ml

LARGEST_BRAIN_ML = 2200.0  # with its fluid spaces; the largest ever reported lie below, a head has 4,000 ml and more
_LEAST_SHARE = 0.05  # of the volume; less is no background but a few equal voxels
_CORNERS = 6  # of eight that must hold the constant; one or two may lie in tissue
_WHOLE = 0.95  # share of the volume from which on there is no background at all
_LEAST_FIELD_ML = 500.0  # a smaller field of view cannot hold a brain with air around it
_EDGE_SHARE = 0.02  # of the outermost voxels that may show something in a brain alone: brains are cut at top and bottom


class Cleaned(NamedTuple):
    """``data``: float32 or as stored, background zero, or None where nothing is shown; ``note``: what was done."""

    data: np.ndarray | None
    note: str


class UnfitError(ValueError):
    """An image that this package cannot work on; the message does not name the file."""


def clean(data: np.ndarray, affine: np.ndarray, skull_stripped: bool) -> Cleaned:
    """A volume with its background at zero.

    Args:
        data: (X, Y, Z), finite.
        affine: (4, 4) voxel-to-world matrix in mm.
        skull_stripped: whether it has to be a brain without skull.

    Raises:
        UnfitError: it has to be one and is not.
    """
    first = data.flat[0]
    if bool((data == first).all()):
        return Cleaned(None, f"every voxel is {float(first):g}, so it was treated as absent")
    found = find_background(data)
    note = "" if found is None else found.note
    if found is not None and found.value != 0:
        data = without_background(data, found.value)
    fault = why_not_stripped(data, affine) if skull_stripped else None
    if fault:
        raise UnfitError(
            f"{fault}: it looks like a head with its skull, as it comes from the scanner; medmap prepare registers the "
            "sequences of a study and removes the skull"
        )
    return Cleaned(data, note)


class Background(NamedTuple):
    """``value``: the constant around what is shown; ``note``: what to tell where it is not zero."""

    value: float
    note: str


def find_background(data: np.ndarray) -> Background | None:
    """The constant that fills the corners of a volume (X, Y, Z); None where they hold no common value.

    A background of zero is what everything here expects. Another one (-1000, the minimum of an image scaled to
    [-1, 1], the z-score of zero, a zero that slope and intercept have moved) counts when most corners and a good share
    of the volume hold exactly it.
    """
    corners = data[tuple(slice(None, None, max(size - 1, 1)) for size in data.shape)].ravel()
    values, counts = np.unique(corners, return_counts=True)
    value = values[counts.argmax()]
    if counts.max() < min(_CORNERS, corners.size):
        return None
    if value != 0 and float((data == value).mean()) < _LEAST_SHARE:
        return None
    return Background(float(value), "" if value == 0 else f"its background is {float(value):g} and was taken as 0")


def without_background(data: np.ndarray, value: float) -> np.ndarray:
    """``data`` with the background at zero and everything else shifted along, float32; z-scores do not notice."""
    moved = data.astype(np.float32) - np.float32(value)
    moved[data == data.dtype.type(value)] = 0
    return moved


def why_not_stripped(data: np.ndarray, affine: np.ndarray) -> str | None:
    """Why a volume whose background is zero cannot be a brain without skull; None where it can."""
    voxel = voxel_ml(affine)
    share = float(np.count_nonzero(data)) / data.size
    shown_ml = share * data.size * voxel
    if shown_ml > LARGEST_BRAIN_ML:
        return f"shows {shown_ml:.0f} ml, more than any brain ({LARGEST_BRAIN_ML:.0f} ml)"
    if share > _WHOLE and data.size * voxel > _LEAST_FIELD_ML:
        return f"has no background ({share:.0%} of its {data.size * voxel:.0f} ml show something)"
    return None


def foreground(data: np.ndarray) -> np.ndarray:
    """bool, shape of ``data``: voxels that are not background; all of them where there is none."""
    found = find_background(data)
    if found is None:
        return np.ones(data.shape, dtype=bool)
    return np.asarray(data != data.dtype.type(found.value))


def is_brain_alone(data: np.ndarray, affine: np.ndarray) -> bool:
    """Whether a volume, whatever its background, surely shows a brain without skull.

    :func:`why_not_stripped` finds what surely is none. Between the two lie slabs and small heads: they are read where
    brains are expected, and ``medmap prepare`` looks for the brain in them. What tells these from a brain is the edge
    of the volume, which a neck or a slab reaches.
    """
    shown = foreground(data)
    if not shown.any() or why_not_stripped(shown, affine) is not None:
        return False
    edges = [np.take(shown, index, axis=axis) for axis in range(shown.ndim) for index in (0, -1)]
    return sum(int(edge.sum()) for edge in edges) <= _EDGE_SHARE * sum(edge.size for edge in edges)
