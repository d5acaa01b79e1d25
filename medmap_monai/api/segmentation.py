"""The segmentation of one study: label map, affine and what the values mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medmap_monai.utils.output import read_record


@dataclass(frozen=True)
class Segmentation:
    """One study's result, on the grid of its own images.

    case_id: name of the case.
    image: the label map as a NIfTI image; ``nibabel.save`` writes it with the geometry of the study's file.
    labels: name of the class by label value, background (0) included.
    modalities_used, modalities_absent: what the network saw, and what it had to do without.
    volumes_ml: millilitres by class name, background left out.
    expected_dice: mean Dice by region that an evaluation of these weights found with these modalities; empty where
        there is none.
    warnings: what was noticed about study or result, as sentences.
    path: the file that holds the label map; None when nothing was written.
    record: everything that the run wrote down about the case: weights, versions, inputs, settings.
    """

    case_id: str
    image: nib.Nifti1Image
    labels: Mapping[int, str]
    modalities_used: tuple[str, ...]
    modalities_absent: tuple[str, ...]
    volumes_ml: Mapping[str, float]
    expected_dice: Mapping[str, float]
    warnings: tuple[str, ...]
    path: Path | None = None
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def label_map(self) -> np.ndarray:
        """Label values (X, Y, Z), integers; read from ``path`` on the first use."""
        return np.asarray(self.image.dataobj)

    @property
    def affine(self) -> np.ndarray:
        """Voxel to millimetres (RAS+), (4, 4), as the study's file has it."""
        return np.asarray(self.image.affine)


def read_segmentation(folder: Path, case_id: str) -> Segmentation:
    """What a run left in ``folder`` of a case that it finished.

    Raises:
        FileNotFoundError: it left no such result.
    """
    record = read_record(folder, case_id)
    if record is None or record["status"] != "ok":
        raise FileNotFoundError(f"{folder} holds no finished result of case {case_id}")
    path = folder / record["output"]
    values = record["label_values"] or {}
    expected = record["expected"] or {"dice": {}, "warnings": []}
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return Segmentation(
        case_id=case_id,
        image=image,
        labels={int(values.get(str(index), index)): name for index, name in enumerate(record["classes"])},
        modalities_used=tuple(record["modalities"]["used"]),
        modalities_absent=tuple(record["modalities"]["absent"]),
        volumes_ml={name: volume["ml"] for name, volume in record["volumes"].items()},
        expected_dice={region: score["mean"] for region, score in expected["dice"].items()},
        warnings=(*expected["warnings"], *record["notes"], *record["plausibility"]),
        path=path,
        record=record,
    )
