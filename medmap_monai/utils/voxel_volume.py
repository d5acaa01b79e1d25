"""The volume of a voxel."""

from __future__ import annotations

from typing import Any

import numpy as np


def voxel_ml(affine: Any) -> float:
    """Volume of a voxel in ml from its affine in mm, (4, 4)."""
    return float(abs(np.linalg.det(np.asarray(affine, dtype=np.float64)[:3, :3]))) / 1000.0
