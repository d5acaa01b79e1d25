"""Whether a study meets the network as those of its training did: the window, the voxels, and the orientation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import RandSpatialCropd
from nibabel.filebasedimages import ImageFileError

from medmap_monai.data.nifti_affine import nifti_affine
from medmap_monai.data.study import Study
from medmap_monai.data.training_cases import TrainingCases
from medmap_monai.transforms.pipelines import fixed_grid

_SAME_SPACING = 0.01  # relative; resampling rounds


def unlike_training(image: Any, roi_size: Sequence[int] | int, seen: TrainingCases | None) -> list[str]:
    """What to note about a preprocessed image.

    Args:
        image: MetaTensor (M, ...) as the network gets it.
        roi_size: window of the inferer in voxels; entries that are not positive take the image's size.
        seen: what the weights were trained on; None where that is not known.
    """
    notes = []
    shape = tuple(int(size) for size in image.shape[1:])
    roi = [int(size) for size in np.atleast_1d(roi_size)]
    roi = roi * len(shape) if len(roi) == 1 else roi
    window = tuple(size if size > 0 else whole for size, whole in zip(roi, shape, strict=False))
    small = [f"{whole} of {size}" for size, whole in zip(window, shape, strict=False) if whole < size]
    if small:
        notes.append(
            f"it is smaller than the window ({', '.join(small)} voxels): padded with background, as in training"
        )
    if seen is None:
        return notes
    trained = tuple(size if size > 0 else now for size, now in zip(seen.window, window, strict=False))
    if trained and len(seen.window) == len(window) and trained != window:
        notes.append(
            f"the window of {_size(window)} voxels is not that of the training ({_size(trained)}), for which alone its "
            "quality is known"
        )
    affine = getattr(image, "affine", None)
    size = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0) if affine is not None and seen.spacing else ()
    if any(abs(now - then) > _SAME_SPACING * then for now, then in zip(size, seen.spacing, strict=False)):
        notes.append(
            f"the network sees voxels of {_mm(size)} mm and was trained on {_mm(seen.spacing)} mm; "
            f"--set 'spacing=[{', '.join(f'{s:g}' for s in seen.spacing)}]' resamples for the network, and results "
            "stay on the grid of the study"
        )
    here = "".join(nib.orientations.aff2axcodes(np.asarray(affine))) if affine is not None else ""
    if seen.orientation and here and here != seen.orientation:
        notes.append(
            f"the network sees it as {here} and was trained on {seen.orientation}; --set "
            f"orientation={seen.orientation} turns it for the network, and results stay on the grid of the study"
        )
    return notes


def training_window(pipeline: Any) -> tuple[int, ...]:
    """Voxels of the random crops of a training pipeline; empty where it has none."""
    for transform in getattr(pipeline, "transforms", ()):
        if isinstance(transform, RandSpatialCropd):
            size = tuple(int(n) for n in np.atleast_1d(getattr(transform.cropper, "roi_size", ())))
            return size[:2] if size[2:] == (1,) else size  # one slice of a volume, for networks that work on slices
    return ()


def training_spacing(pipeline: Any) -> tuple[float, ...]:
    """Voxel size in mm that a training pipeline brings studies to; empty where it keeps theirs."""
    return tuple(fixed_grid(pipeline).get("spacing", ()))


def training_orientation(pipeline: Any, records: Sequence[Any]) -> str:
    """Axis codes of what a training pipeline makes of ``records``; empty where they differ or are not known."""
    fixed = fixed_grid(pipeline).get("orientation")
    if fixed:
        return str(fixed)
    studies = [record.get("study") for record in records if hasattr(record, "get")]
    found = {_orientation(next(iter(study.images.values())).path) for study in studies if isinstance(study, Study)}
    return found.pop() if len(found) == 1 else ""


def _orientation(path: Path) -> str:
    try:
        return "".join(nib.orientations.aff2axcodes(nifti_affine(nib.load(path).header)))
    except (OSError, ValueError, ImageFileError):
        return ""


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in spacing)


def _size(window: Sequence[int]) -> str:
    return " x ".join(str(size) for size in window)
