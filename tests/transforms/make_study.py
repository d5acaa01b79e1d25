"""Small studies on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medmap_monai.data.editions import get_edition
from medmap_monai.data.study import ImageSource, Study

MODALITIES = ("flair", "t1ce", "t1", "t2")
OBLIQUE = np.array([[0.9, 0.15, 0.05, -31.2], [-0.12, 1.1, -0.3, 17.7], [0.05, 0.35, 1.9, 4.4], [0, 0, 0, 1.0]])


def write_volume(
    path: Path, data: np.ndarray, affine: np.ndarray = OBLIQUE, sform_code: int = 2, qform_code: int = 0
) -> Path:
    """A NIfTI file; with ``sform_code`` 0 the affine is stored in the qform alone (and must be without shear)."""
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine if sform_code else None, sform_code)
    image.set_qform(affine if qform_code else None, qform_code)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def brain(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Positive values inside an ellipsoid, zero outside."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum(a**2 for a in axes) < 0.8
    return (inside * rng.uniform(50, 200, shape)).astype(np.float32)


def make_study(
    folder: Path,
    modalities: Sequence[str] = MODALITIES,
    shape: Sequence[int] = (12, 14, 10),
    affine: np.ndarray = OBLIQUE,
    edition: str = "brats2020",
    case_id: str = "case.01",
    label: bool = True,
    seed: int = 0,
    **geometry: Any,
) -> Study:
    """A study with random images and every label value of the edition."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for name in modalities:
        path = folder / f"{case_id}_{name}.nii.gz"
        images[name] = ImageSource(write_volume(path, brain(shape, rng), affine, **geometry))
    path = None
    if label:
        values = rng.choice(sorted(get_edition(edition).labels), size=shape).astype(np.int16)
        path = write_volume(folder / f"{case_id}_label.nii.gz", values, affine, **geometry)
    return Study(case_id, images, path, edition)


def voxels(path: Path | None) -> np.ndarray:
    """The stored values of a file."""
    assert path is not None
    return np.asarray(nib.load(path).dataobj)
