"""The real study of the tests, and how far prepared sequences lie from where another preprocessing put them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from medmap_monai.clinical import prepare_study
from medmap_monai.clinical.prepare_study import PreparedImages
from medmap_monai.clinical.register import register_rigid
from medmap_monai.clinical.study_figures import to_lps
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


class OtherPreprocessing:
    """Where the other preprocessing has every native image, found by rigid registration, once.

    Args:
        complete: the preparation of all sequences; its images are without skull, as those of the other one are.

    Attributes:
        images: those of the other preprocessing. native: modality -> (4, 4), its world -> world of the native image.
    """

    def __init__(self, complete: PreparedImages) -> None:
        self.images = reference_images()
        self.native = {
            name: to_own(complete, name) @ register_rigid(self.images[name], volume).matrix
            for name, volume in complete.volumes.items()
        }
        self._brain = self.images["t1"].data != 0
        voxels = np.argwhere(self._brain)[::997]
        self._points = np.c_[voxels, np.ones(len(voxels))] @ self.images["t1"].affine.T

    def shifts(self, prepared: PreparedImages) -> dict[str, float]:
        """Mean distance (mm) over the brain of every sequence from where the others put it; none for one alone.

        Were all sequences registered without fault in both, one and the same movement would lead from the other
        preparation to this one.
        """
        seen = {
            name: (self._points @ (np.linalg.inv(to_own(prepared, name)) @ self.native[name]).T)[:, :3]
            for name in prepared.volumes
        }
        apart = {
            frozenset(pair): float(np.linalg.norm(seen[pair[0]] - seen[pair[1]], axis=1).mean())
            for pair in combinations(seen, 2)
        }
        return {n: float(np.median([d for pair, d in apart.items() if n in pair])) for n in seen if len(seen) > 1}

    def dice(self, prepared: PreparedImages) -> float:
        """Dice of the two brains, this one moved to where the other one has the sequence that it was found on."""
        assert prepared.mask is not None
        name = prepared.skull["on"]
        place = np.linalg.inv(to_own(prepared, name)) @ self.native[name]
        mask = Volume(prepared.mask.data.astype(np.float32), prepared.mask.affine)
        moved = mask.on_grid(self._brain.shape, self.images["t1"].affine, place, "nearest") > 0
        return float(2 * (moved & self._brain).sum() / (moved.sum() + self._brain.sum()))


def to_own(prepared: PreparedImages, modality: str) -> np.ndarray:
    """(4, 4), world of a preparation -> world of one of its images as it was."""
    found = prepared.registrations.get(modality)
    return np.eye(4) if found is None else found.matrix


@contextmanager
def remembered() -> Iterator[None]:
    """While it lasts, preparation registers every pair of images once, and looks for every brain once.

    Both are functions of their images alone: the same voxels at the same places (to a micrometre, as DICOM writes
    numbers as text), whichever way they are stored, give the same answer.
    """
    with (
        patch.object(prepare_study, "register_rigid", _once(prepare_study.register_rigid)),
        patch.object(prepare_study, "find_brain", _once(prepare_study.find_brain)),
    ):
        yield


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[Any, ...], Any] = {}

    @wraps(function)
    def answer(*given: Any) -> Any:
        key = tuple(_digest(value) if isinstance(value, Volume) else value for value in given)
        if key not in known:
            known[key] = function(*given)
        return known[key]

    return answer


def _digest(volume: Volume) -> str:
    same = to_lps(volume)
    place = np.round(same.affine, 3) + 0.0
    return hashlib.sha256(same.data.astype(np.float32).tobytes() + place.tobytes()).hexdigest()
