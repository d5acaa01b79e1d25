"""A toy label map of a brain, so that everything that starts from anatomy runs without any: tests and first steps."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np

from medmap_monai.utils.files import atomic_path

_SPACING = 3.0  # mm
_SHAPE = (52, 64, 52)


def ensure_phantom_anatomy(folder: str | os.PathLike[str], maps: int = 3) -> str:
    """Write ``maps`` label maps of ellipsoidal brains into ``folder`` where they are not there, and return the folder.

    FreeSurfer numbers; white matter, a folded cortex, ventricles, deep grey matter, cerebellum and outer fluid. Their
    shapes are computed: for trying software only.
    """
    root = Path(folder)
    for number in range(maps):
        path = root / f"phantom_brain_{number + 1:02d}.nii.gz"
        if not path.is_file():
            with atomic_path(path) as temporary:
                nib.save(nib.Nifti1Image(_labels(number), np.diag([_SPACING, _SPACING, _SPACING, 1.0])), temporary)
    return str(root)


def _labels(number: int) -> np.ndarray:
    rng = np.random.RandomState(number)
    axes = [(np.arange(n) - (n - 1) / 2) * _SPACING for n in _SHAPE]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    size = np.array([66.0, 84.0, 64.0]) * rng.uniform(0.95, 1.05, 3)
    folds = 0.05 * np.sin(x / 5 + rng.uniform(0, 6)) * np.sin(y / 6 + rng.uniform(0, 6)) * np.sin(z / 5)
    distance = np.sqrt((x / size[0]) ** 2 + (y / size[1]) ** 2 + (z / size[2]) ** 2)
    labels = np.zeros(_SHAPE, dtype=np.uint8)
    left = x < 0
    labels[distance < 1] = 24
    labels[distance + folds < 0.94] = 42
    labels[(distance + folds < 0.94) & left] = 3
    labels[distance + 2 * folds < 0.84] = 41
    labels[(distance + 2 * folds < 0.84) & left] = 2
    for side, ventricle, deep in ((-1, 4, 10), (1, 43, 49)):
        labels[((x - side * 10) / 6) ** 2 + (y / 30) ** 2 + ((z - 8) / 10) ** 2 < 1] = ventricle
        labels[((x - side * 22) / 9) ** 2 + ((y + 4) / 16) ** 2 + (z / 12) ** 2 < 1] = deep
        cerebellum = ((x - side * 20) / 22) ** 2 + ((y + 50) / 20) ** 2 + ((z + 36) / 16) ** 2 < 1
        labels[cerebellum & (labels > 0)] = 46 if side > 0 else 7
    return labels
