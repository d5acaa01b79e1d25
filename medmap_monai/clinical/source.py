"""What a folder from a scanner or an archive holds, before its voxels are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from medmap_monai.clinical.recognise import SequenceFacts

NIFTI, DICOM = "nifti", "dicom"


@dataclass(frozen=True)
class SourceImage:
    """One NIfTI file or DICOM series.

    kind: ``nifti`` or ``dicom``.
    label: what people know it by: file name, or series description.
    files: the file, or the series' files in the order of their slices.
    facts: what the header or the name says about the sequence.
    key: identifies the image within its study, without identifying the patient (file name, or hash of the UID).
    affine: (4, 4) rows of the voxel-to-RAS matrix, for a DICOM series.
    spacing: voxel size (mm), where the header says it.
    refused: why the image cannot be used whatever it is (4-D, missing slices, ...), or an empty text.
    """

    kind: str
    label: str
    files: tuple[Path, ...]
    facts: SequenceFacts
    key: str
    affine: tuple[tuple[float, ...], ...] | None = None
    spacing: tuple[float, float, float] | None = None
    refused: str = ""


@dataclass(frozen=True)
class SourceStudy:
    """One patient's visit.

    name: name of the case in every output; letters, digits, ``.``, ``_`` and ``-``.
    images: everything found, recognised or not.
    notes: remarks on how the study was found.
    """

    name: str
    images: tuple[SourceImage, ...]
    notes: tuple[str, ...] = ()

    def renamed(self, name: str) -> SourceStudy:
        """The study under another name."""
        return replace(self, name=name)
