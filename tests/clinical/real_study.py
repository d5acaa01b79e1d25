"""The real study of the tests, and how far prepared sequences lie from those of another preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from medmap_monai.clinical.register import register_rigid
from medmap_monai.clinical.volume import Volume, read_nifti

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
STUDY = "TCGA-FG-6692"
MODALITIES = ("flair", "t1ce", "t1", "t2")


def native_files() -> dict[str, Path]:
    """The four images as they came from the scanner; skips the test where they are not there."""
    folder = REAL / STUDY / "native"
    if not folder.is_dir():
        pytest.skip(f"the real study is not there ({folder})")
    endings = {"flair": "_fla", "t1ce": "_t1c", "t1": "_t1", "t2": "_t2"}
    return {name: next(folder.glob(f"*{ending}.nii.gz")) for name, ending in endings.items()}


def reference_images() -> dict[str, Volume]:
    """The same study after another, public preprocessing: registered, without skull, 1 mm."""
    folder = REAL / STUDY / "brats_space"
    return {name: read_nifti(folder / f"{STUDY}_{name}.nii.gz") for name in MODALITIES}


def placed_in(prepared: Mapping[str, Volume], reference: Mapping[str, Volume]) -> dict[str, np.ndarray]:
    """For each sequence alone: world of the reference's image -> world of the prepared one, (4, 4)."""
    return {name: register_rigid(reference[name], volume).matrix for name, volume in prepared.items()}


def residual_shifts(places: Mapping[str, np.ndarray], brain: np.ndarray) -> dict[str, float]:
    """Mean distance (mm) over the brain of every sequence from where the others put it.

    Were all sequences registered without fault in both, they would need one and the same movement.

    Args:
        places: from :func:`placed_in`.
        brain: (N, 3) points in the world of the reference.
    """
    points = np.c_[brain, np.ones(len(brain))]
    seen = {name: (points @ matrix.T)[:, :3] for name, matrix in places.items()}
    apart = {frozenset(pair): _distance(seen[pair[0]], seen[pair[1]]) for pair in combinations(seen, 2)}
    return {name: float(np.median([d for pair, d in apart.items() if name in pair])) for name in seen}


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other, axis=1).mean())


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two masks."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))
