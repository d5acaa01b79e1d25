"""What hangs together in a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def connected_parts(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The parts of ``mask`` that hang together over faces, edges or corners.

    Returns:
        number of the part of every voxel, 0 where there is none; and the voxels of every part, of part 1 first.
    """
    parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return parts, np.bincount(parts.ravel(), minlength=count + 1)[1:]
