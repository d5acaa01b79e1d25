"""The segmentation of one study: label map, affine and what the values mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from medmap_monai.data.editions import Edition


@dataclass(frozen=True)
class Segmentation:
    """One study's result, on the grid of its own images.

    case_id: name of the case.
    image: the label map as a NIfTI image; ``nibabel.save`` writes it with the geometry of the study's file.
    labels: name of the class by label value, background (0) included.
    modalities_used, modalities_absent: what the network saw, and what it had to do without.
    volumes_ml: millilitres by class name, background left out.
    path: the file that holds the label map; None when nothing was written.
    """

    case_id: str
    image: nib.Nifti1Image
    labels: Mapping[int, str]
    modalities_used: tuple[str, ...]
    modalities_absent: tuple[str, ...]
    volumes_ml: Mapping[str, float]
    path: Path | None = None

    @property
    def label_map(self) -> np.ndarray:
        """Label values (X, Y, Z), integers; read from ``path`` on the first use."""
        return np.asarray(self.image.dataobj)

    @property
    def affine(self) -> np.ndarray:
        """Voxel to millimetres (RAS+), (4, 4), as the study's file has it."""
        return np.asarray(self.image.affine)


def label_names(edition: Edition) -> dict[int, str]:
    """Class name by the label value that predictions in this edition are written with."""
    return {0: edition.classes[0], **{value: edition.classes[i] for i, value in sorted(edition.disk_values.items())}}
