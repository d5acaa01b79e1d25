"""The record of one prediction: everything about where it comes from, as JSON beside the label map and as a row."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medmap_monai.engines.finished_prediction import files_of
from medmap_monai.engines.prediction_facts import NOTICE, PredictionFacts
from medmap_monai.metrics.reliability import ExpectedQuality
from medmap_monai.modalities import SUBSET_SEPARATOR
from medmap_monai.utils.files import file_sha256
from medmap_monai.utils.synthetic import is_synthetic
from medmap_monai.utils.voxel_volume import voxel_ml

FORMAT = 1
#: columns of ``predictions.csv``; those of the volumes stand after ``modalities_unusable``
COLUMNS = (
    "case_id",
    "status",
    "modalities_used",
    "modalities_absent",
    "modalities_unusable",
    "expected_dice",
    "plausibility",
    "notes",
    "edition",
    "label_values",
    "model",
    "version",
    "weights_sha256",
    "config_sha256",
    "protocol",
    "synthetic",
    "seconds",
    "output",
    "message",
)


def where_from(
    facts: PredictionFacts,
    case_id: str,
    modalities: Sequence[str],
    used: Sequence[str],
    origin: Mapping[str, Any],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Where a prediction comes from: what the header of the label map says, and its record.

    Args:
        facts: what the run is made of.
        case_id: of the study.
        modalities: names that the network takes.
        used: those that the prediction is made from.
        origin: of the study: its ``inputs``, files by name, and its edition.
        classes: name of every class, background first.
    """
    files = origin.get("inputs", {})
    inputs = files_of(modalities, files)
    return {
        **facts.as_json(),
        "case_id": case_id,
        "fingerprint": facts.fingerprint(inputs),
        "modalities": {
            "used": list(used),
            "absent": [name for name in modalities if name not in files and name not in used],
            "unusable": [name for name in modalities if name in files and name not in used],
        },
        "edition": origin.get("edition", ""),
        "edition_known": origin.get("edition_known", False),
        "label_values": origin.get("label_values"),
        "classes": list(classes),
        "synthetic": any(is_synthetic(file["file"]) for file in inputs.values()),
    }


def finished_record(
    told: Mapping[str, Any],
    label_map: Any,
    quality: ExpectedQuality | None,
    notes: Sequence[str],
    plausibility: Sequence[str],
    device: str,
    seconds: float,
    saved: Path,
    folder: str | os.PathLike[str],
) -> dict[str, Any]:
    """The record of a study that was segmented.

    Args:
        told: what the header of the label map says too, and the input files.
        label_map: class indices (1, X, Y, Z) on the original grid, with its affine.
        quality: expected Dice with these modalities, or None.
        notes: what was noticed when the study was read.
        plausibility: what looks wrong with the result.
        device: where it was computed.
        seconds: of reading the batch to the written file.
        saved: the file of the label map.
        folder: output folder.
    """
    remarks = list(notes)
    if not told["edition_known"]:
        remarks.append("edition unknown: label values are the class indices of the network")
    expected = None
    if quality is not None:
        expected = {
            "dice": {region: score._asdict() for region, score in quality.values.items()},
            "source": quality.source,
            "warnings": quality.warnings,
        }
    return {
        "format": FORMAT,
        "notice": NOTICE,
        "status": "ok",
        **told,
        "volumes": _volumes(label_map, told["classes"]),
        "expected": expected,
        "plausibility": list(plausibility),
        "notes": remarks,
        "device": device,
        "seconds": round(seconds, 3),
        "output": os.path.relpath(saved, folder),
        "label_map_sha256": file_sha256(saved),  # tells later whether it was changed by hand
        "message": "",
    }


def failed_record(case_id: str, message: str, facts: PredictionFacts) -> dict[str, Any]:
    """The record of a study that could not be segmented."""
    return {
        "format": FORMAT,
        "notice": NOTICE,
        "status": "failed",
        "case_id": case_id,
        **facts.as_json(),
        "message": " ".join(message.split()),
    }


def table_row(record: Mapping[str, Any]) -> dict[str, str]:
    """A record as a row of ``predictions.csv``; what a failed study does not have stays empty."""
    row = {
        "case_id": str(record["case_id"]),
        "status": str(record["status"]),
        "model": str(record["model"]),
        "version": str(record["version"]),
        "weights_sha256": str(record["weights"]["sha256"]),
        "config_sha256": str(record["config_sha256"]),
        "protocol": str(record["protocol"]),
        "message": str(record["message"]),
    }
    if record["status"] != "ok":
        return row
    values: Mapping[str, int] = record["label_values"] or {}
    scores = (record["expected"] or {}).get("dice", {})
    row |= {f"modalities_{kind}": SUBSET_SEPARATOR.join(names) for kind, names in record["modalities"].items()}
    for name, volume in record["volumes"].items():
        row |= {f"voxels_{name}": str(volume["voxels"]), f"volume_ml_{name}": f"{volume['ml']:.3f}"}
    classes = list(enumerate(record["classes"]))[1:]
    return row | {
        "expected_dice": " ".join(f"{region}={score['mean']:.2f}" for region, score in scores.items()),
        "plausibility": "; ".join(record["plausibility"]),
        "notes": "; ".join(record["notes"]),
        "edition": str(record["edition"]) if record["edition_known"] else f"{record['edition']} (unknown)".strip(),
        "label_values": " ".join(f"{name}={values.get(str(index), index)}" for index, name in classes),
        "synthetic": "yes" if record["synthetic"] else "no",
        "seconds": f"{record['seconds']:.2f}",
        "output": str(record["output"]),
    }


def _volumes(label_map: Any, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Voxel count and volume (ml) of every foreground class of a class-index map on the original grid."""
    counts = np.bincount(np.asarray(label_map, dtype=np.int64).ravel(), minlength=len(classes))
    voxel = voxel_ml(label_map.affine)
    return {
        name: {"voxels": int(counts[index]), "ml": round(float(counts[index] * voxel), 3)}
        for index, name in list(enumerate(classes))[1:]
    }
