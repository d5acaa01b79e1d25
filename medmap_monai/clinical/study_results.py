"""What a radiologist gets of one study: label maps on the original images, DICOM SEG, and a page."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medmap_monai.clinical.dicom_seg import write_dicom_seg
from medmap_monai.clinical.native_labels import label_native_images
from medmap_monai.clinical.prepare_folder import PreparedStudy
from medmap_monai.clinical.source import DICOM, NIFTI, SourceImage
from medmap_monai.clinical.volume import Volume
from medmap_monai.transforms.nifti_geometry import label_image, pack_geometry
from medmap_monai.transforms.restore import disk_label_values
from medmap_monai.utils.files import atomic_path, file_sha256, write_text
from medmap_monai.utils.json_file import read_json, read_own_record

RESULTS_NAME = "native.json"
REPLACED = "replaced"


@dataclass
class StudyResults:
    """Files written for a study: modality -> path, and what could not be written."""

    labels: dict[str, Path] = field(default_factory=dict)
    segmentations: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def write_study_results(
    study: PreparedStudy, probabilities: Volume, record: Mapping[str, Any], folder: Path
) -> StudyResults:
    """Label maps on the grid of every original image, and a DICOM SEG for every series that was DICOM.

    Args:
        study: the prepared study, with the images it came from.
        probabilities: data (K, X, Y, Z) on the prepared grid (or any other of the same world).
        record: what ``medmap predict`` writes beside its label map: classes, label values, model.
        folder: where to write; ``native.json`` comes last, so that it stands for a complete set.

    Returns:
        the files. A DICOM SEG that cannot be written is a note, not an error: the label maps are there.
    """
    results = StudyResults()
    classes = list(record["classes"])
    values = {int(index): int(value) for index, value in (record.get("label_values") or {}).items()}
    values = values or {index: index for index in range(len(classes))}
    results.notes += _keep_corrected(folder)
    (folder / RESULTS_NAME).unlink(missing_ok=True)
    for number, (modality, labels) in enumerate(
        label_native_images(probabilities, study.sources, study.record).items()
    ):
        image = study.sources[modality]
        results.labels[modality] = folder / "native" / f"{study.name}_{modality}_seg.nii.gz"
        _write_labels(labels, image, results.labels[modality], values, str(record.get("edition", "")))
        if image.kind != DICOM:
            continue
        path = folder / "dicom" / f"{study.name}_{modality}_seg.dcm"
        try:
            results.segmentations[modality] = write_dicom_seg(
                labels, image, path, classes, str(record.get("model", "medmap-monai")), _version(record), number
            )
        except Exception as error:  # whatever a scanner's header holds must not cost the label maps and the page
            path.unlink(missing_ok=True)
            results.notes.append(f"no DICOM SEG for {modality}: {error}")
    content = {
        "study": study.name,
        "key": study.record.get("key"),
        "fingerprint": record.get("fingerprint"),
        "labels": {m: p.relative_to(folder).as_posix() for m, p in results.labels.items()},
        "sha256": {p.relative_to(folder).as_posix(): file_sha256(p) for p in results.labels.values()},
        "dicom_seg": {m: p.relative_to(folder).as_posix() for m, p in results.segmentations.items()},
        "notes": results.notes,
    }
    written = {*results.labels.values(), *results.segmentations.values()}
    for kind, ending in (("native", "nii.gz"), ("dicom", "dcm")):  # of a run with other sequences, or another model
        for stale in set((folder / kind).glob(f"{glob.escape(study.name)}_*_seg.{ending}")) - written:
            stale.unlink()
    write_text(folder / RESULTS_NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return results


def results_are_current(folder: Path, study: PreparedStudy, record: Mapping[str, Any]) -> bool:
    """Whether ``folder`` holds the results of this preparation and this prediction."""
    try:
        content = read_json(folder / RESULTS_NAME)
        same = content["key"] == study.record["key"] and content["fingerprint"] == record["fingerprint"]
        files = [*content["labels"].values(), *content["dicom_seg"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return same and all((folder / name).is_file() for name in files)


def _keep_corrected(folder: Path) -> list[str]:
    """Copy label maps that somebody changed since they were written to ``replaced/``; what to tell of it."""
    told = []
    for name, digest in ((read_own_record(folder / RESULTS_NAME) or {}).get("sha256") or {}).items():
        path = folder / name
        now = file_sha256(path) if path.is_file() else digest
        if now != digest:
            copy = folder / REPLACED / path.name.replace(".nii", f"_{now[:12]}.nii")
            with atomic_path(copy) as temporary:
                shutil.copy2(path, temporary)
            told.append(f"{name} had been changed since it was written; it is kept as {copy.relative_to(folder)}")
    return told


def _version(record: Mapping[str, Any]) -> str:
    return str(record.get("version") or "unknown")


def _write_labels(labels: Volume, image: SourceImage, path: Path, values: Mapping[int, int], edition: str) -> None:
    """Class indices as label values, with the geometry of the original file where it is NIfTI."""
    geometry = None
    if image.kind == NIFTI:
        geometry = pack_geometry(nib.load(image.files[0]).header)
    on_disk = disk_label_values(np.asarray(labels.data), values, edition)
    with atomic_path(path) as temporary:
        nib.save(label_image(on_disk, labels.affine, geometry), temporary)
