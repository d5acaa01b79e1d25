"""Brains to build synthetic studies from: label maps of FreeSurfer, FastSurfer or SynthSeg as soft tissue maps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

TISSUES = ("white", "cortex", "deep", "fluid", "plexus")
# FreeSurfer's label numbers (FreeSurferColorLUT.txt; SynthSeg uses a part of them). 25, 57: lesions of the donors.
_LABELS: dict[str, tuple[int, ...]] = {
    "white": (2, 41, 7, 46, 16, 28, 60, 85, 77, 25, 57, 251, 252, 253, 254, 255),
    "cortex": (3, 42, 8, 47, 17, 53, 18, 54),
    "deep": (10, 49, 11, 50, 12, 51, 13, 52, 26, 58),
    "fluid": (4, 43, 5, 44, 14, 15, 24, 72),
    "plexus": (31, 63, 30, 62),
}
_OUTER_FLUID = 24
_INFRATENTORIAL = (7, 46, 8, 47, 16, 15)
_PARCELS = ((1000, 1036), (2000, 2036))  # cortical parcels of aparc+aseg count as cortex
_CORTEX_OF_PARCELS = 3


@dataclass(frozen=True)
class Anatomy:
    """Soft tissue maps of one brain, in RAS orientation.

    Attributes:
        name: of its file.
        tissue: uint8 (5, X, Y, Z), 255 = a voxel that is all of one of :data:`TISSUES`.
        core: uint8 (1, X, Y, Z), the brain without the fluid around it.
        infratentorial: uint8 (1, X, Y, Z), cerebellum and brain stem.
        spacing: voxel size in mm.
    """

    name: str
    tissue: Tensor
    core: Tensor
    infratentorial: Tensor
    spacing: float

    def maps(self) -> Tensor:
        """All maps as one tensor (7, X, Y, Z): the tissues, core, infratentorial."""
        return torch.cat([self.tissue, self.core, self.infratentorial])


def label_map_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The label maps (.nii, .nii.gz, .mgz) of ``folder``, sorted by name; a file stands for itself.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(folder)
    files = [path] if path.is_file() else sorted(p for p in path.glob("*") if _is_volume(p))
    if not files:
        raise FileNotFoundError(f"no brain label map (.nii, .nii.gz, .mgz) in {path}")
    return files


def _is_volume(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith((".nii", ".nii.gz", ".mgz"))


@lru_cache(maxsize=64)
def load_anatomy(path: Path, spacing: float) -> Anatomy:
    """Read one label map and bring it to ``spacing`` mm.

    Raises:
        ValueError: a label number that is neither FreeSurfer's nor SynthSeg's, named with the file.
    """
    image = nib.as_closest_canonical(nib.load(path))
    labels = np.asanyarray(image.dataobj)
    if labels.ndim == 4 and labels.shape[3] == 1:
        labels = labels[..., 0]
    if labels.ndim != 3:
        raise ValueError(f"{path} has shape {labels.shape}; a 3-D map of brain labels is expected")
    return anatomy_from_labels(np.rint(labels).astype(np.int32), image.header.get_zooms()[:3], spacing, path.name)


def anatomy_from_labels(labels: np.ndarray, zooms: tuple[float, ...], spacing: float, name: str) -> Anatomy:
    """Soft maps at ``spacing`` from hard ``labels`` (X, Y, Z) with voxels of ``zooms`` mm, cropped to the brain."""
    if labels.min() < 0:
        raise ValueError(f"{name}: negative labels are no brain structures")
    counts = np.bincount(labels.ravel())
    if len(counts) > min(low for low, _ in _PARCELS):
        for low, high in _PARCELS:
            labels = np.where((labels >= low) & (labels < high), _CORTEX_OF_PARCELS, labels)
        counts = np.bincount(labels.ravel())
    known = {0}.union(*_LABELS.values())
    unknown = sorted(set(np.flatnonzero(counts).tolist()) - known)
    if unknown:
        raise ValueError(
            f"{name}: label {', '.join(map(str, unknown[:8]))} is not among the FreeSurfer brain labels "
            f"{sorted(known)}; give a segmentation made by FreeSurfer, FastSurfer or SynthSeg"
        )
    inside = np.argwhere(labels.any(axis=(1, 2))), np.argwhere(labels.any(axis=(0, 2))), np.argwhere(labels.any((0, 1)))
    if any(len(places) == 0 for places in inside):
        raise ValueError(f"{name}: the label map is empty")
    box = tuple(slice(int(places.min()), int(places.max()) + 1) for places in inside)
    labels = np.pad(labels[box], 4)
    numbers = np.arange(max(known) + 1)
    maps = [np.isin(numbers, _LABELS[tissue]) for tissue in TISSUES]
    core = numbers != _OUTER_FLUID
    core[0] = False
    table = np.stack([*maps, core, np.isin(numbers, _INFRATENTORIAL)]).astype(np.float32)
    return _anatomy(torch.from_numpy(table[:, labels]), zooms, spacing, name)


def _anatomy(soft: Tensor, zooms: tuple[float, ...], spacing: float, name: str) -> Anatomy:
    """Resample maps (7, X, Y, Z) of values 0..1; averaging over the new voxel makes partial volume."""
    ratio = [spacing / float(z) for z in zooms]
    shape = [max(2, round(n / r)) for n, r in zip(soft.shape[1:], ratio, strict=True)]
    coarser = all(r >= 1 for r in ratio)
    how = {"mode": "area"} if coarser else {"mode": "trilinear", "align_corners": False}
    resampled = torch.nn.functional.interpolate(soft[None], size=shape, **how)[0]
    maps = (resampled.clamp(0, 1) * 255).round().to(torch.uint8)
    return Anatomy(name, maps[:5], maps[5:6], maps[6:7], spacing)
