"""DICOM files -> series with their slices in order, or the reason why a series cannot be one volume."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medmap_monai.clinical.extras import need
from medmap_monai.clinical.recognise import SequenceFacts
from medmap_monai.clinical.source import DICOM, SourceImage
from medmap_monai.clinical.volume import LPS_TO_RAS
from medmap_monai.utils.counted import counted

MINIMUM_SLICES = 8  # fewer are a localiser or a single picture; a head in 8 slices would be 2 cm apart
_BESIDE_MM = 1.0  # a slice may lie off the line of the others by so much, or by a quarter of the distance of slices
_MR = ("1.2.840.10008.5.1.4.1.1.4",)
_ENHANCED_MR = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
_DICOM_SUFFIXES = ("", ".dcm", ".dicom", ".ima", ".img")
_TAGS = (
    "SOPClassUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "ProtocolName",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "ContrastBolusAgent",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SliceThickness",
    "NumberOfFrames",
    "PatientName",
    "PatientID",
    "SeriesNumber",
    "SOPInstanceUID",
)


class DicomStudy(NamedTuple):
    """``key``: hash of the StudyInstanceUID; ``identity``: words that would name the patient (never written)."""

    key: str
    images: list[SourceImage]
    identity: set[str]


def is_dicom(path: Path) -> bool:
    """Whether the file carries the DICOM mark; files without the preamble are tried by their header."""
    if path.suffix.lower() not in _DICOM_SUFFIXES and not path.suffix[1:].isdigit():
        return False
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or (len(start) >= 8 and start[:2] in (b"\x02\x00", b"\x08\x00") and start[3] == 0)


def uid_hash(uid: str) -> str:
    """What stands for a UID in outputs: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(uid.encode()).hexdigest()[:16]


def read_series(files: Iterable[Path]) -> list[DicomStudy]:
    """Sort DICOM files into studies and series by their UIDs, and slices by their place.

    A series that mixes orientations or echo times is split. Files of no MR image (reports, segmentations, other
    scanners) are series that are refused.

    Raises:
        ExtraNeededError: pydicom is not installed.
    """
    pydicom = need("pydicom", "dicom", "reading DICOM")
    series: dict[tuple[str, str], list[tuple[Path, Any]]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for path in files:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
            uids = (str(header.StudyInstanceUID), str(header.SeriesInstanceUID))
            instance = (uids[1], str(header.SOPInstanceUID))
        except (AttributeError, ValueError, OSError, KeyError):
            continue  # no DICOM object, or a DICOMDIR
        if instance not in seen:  # an export often holds a file twice
            seen.add(instance)
            series[uids].append((path, header))
    studies: dict[str, DicomStudy] = {}
    for (study_uid, series_uid), found in sorted(series.items()):
        study = studies.setdefault(study_uid, DicomStudy(uid_hash(study_uid), [], set()))
        study.identity.update(_identity(found[0][1]))
        try:
            study.images.extend(list(_images(series_uid, found)))
        except Exception as error:  # one series with a broken header must not end the search for the others
            label = f"series {found[0][1].get('SeriesNumber', '') or '?'}"
            why = f"its header cannot be understood ({type(error).__name__}: {error})"
            paths = tuple(path for path, _ in found)
            study.images.append(SourceImage(DICOM, label, paths, SequenceFacts(), uid_hash(series_uid), refused=why))
    return list(studies.values())


def _identity(header: Any) -> Iterable[str]:
    name = str(header.get("PatientName", "") or "")
    words = name.replace("^", " ").replace("=", " ").split() + [str(header.get("PatientID", "") or "").strip()]
    return (word.lower() for word in words if len(word) > 2)


def _images(series_uid: str, found: list[tuple[Path, Any]]) -> Iterable[SourceImage]:
    header = found[0][1]
    sop_class = str(header.get("SOPClassUID", ""))
    files = tuple(path for path, _ in found)
    facts = _facts(header)
    label = facts.description or facts.protocol or f"series {header.get('SeriesNumber', '') or '?'}"
    if sop_class in _ENHANCED_MR:
        from medmap_monai.clinical.enhanced_series import enhanced_image

        for path in files:
            yield enhanced_image(path, uid_hash(series_uid), label)
        return
    if sop_class not in _MR:
        what = str(header.get("Modality", "") or "unknown")
        yield SourceImage(DICOM, label, files, facts, uid_hash(series_uid), refused=f"no MR image (Modality {what})")
        return
    groups: dict[Any, list[tuple[Path, Any]]] = defaultdict(list)
    for path, one in found:
        groups[_group(one)].append((path, one))
    for number, (_, group) in enumerate(sorted(groups.items(), key=lambda item: str(item[0]))):
        part = f" (part {number + 1} of {len(groups)})" if len(groups) > 1 else ""
        key = uid_hash(series_uid) + (f"-{number + 1}" if part else "")
        yield _stack(group, label + part, key)


def _group(header: Any) -> tuple[Any, ...]:
    orientation = tuple(round(float(v), 2) for v in header.get("ImageOrientationPatient", None) or ())
    echo = _number(header, "EchoTime")
    return orientation, echo and round(echo, 1)


def _number(header: Any, name: str) -> float | None:
    try:
        value = header.get(name, None)
        return None if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return None


def _facts(header: Any) -> SequenceFacts:
    agent = header.get("ContrastBolusAgent", None)
    return SequenceFacts(
        description=str(header.get("SeriesDescription", "") or ""),
        protocol=str(header.get("ProtocolName", "") or ""),
        echo_time=_number(header, "EchoTime"),
        repetition_time=_number(header, "RepetitionTime"),
        inversion_time=_number(header, "InversionTime"),
        contrast_agent=None if agent is None else str(agent),
        image_type=tuple(str(value) for value in header.get("ImageType", None) or ()),
    )


def _stack(group: list[tuple[Path, Any]], label: str, key: str) -> SourceImage:
    facts = _facts(group[0][1])
    try:
        rows = {(int(h.Rows), int(h.Columns), *(round(float(v), 4) for v in h.PixelSpacing)) for _, h in group}
        orientation = np.asarray([float(v) for v in group[0][1].ImageOrientationPatient]).reshape(2, 3)
        positions = np.asarray([[float(v) for v in h.ImagePositionPatient] for _, h in group])
    except (AttributeError, TypeError, ValueError):
        return SourceImage(
            DICOM, label, tuple(p for p, _ in group), facts, key, refused="its slices have no place in space"
        )
    normal = np.cross(orientation[0], orientation[1])
    order = np.argsort(positions @ normal, kind="stable")
    files = tuple(group[i][0] for i in order)
    image = SourceImage(DICOM, label, files, facts, key)
    if len(rows) > 1:
        return _refuse(image, f"its slices differ in size: {sorted(rows)}")
    spacing = [float(v) for v in group[0][1].PixelSpacing]
    refused = stack_problem(positions[order] @ normal) or line_problem(positions[order])
    if refused:
        return _refuse(image, refused)
    return placed(image, orientation, positions[order], spacing)


def stack_problem(places: np.ndarray) -> str:
    """Why slices at these places (mm along their normal, ascending) are not one volume; an empty text when they are."""
    distinct = np.unique(np.round(places, 2))
    if len(distinct) < MINIMUM_SLICES:
        return f"{counted(len(distinct), 'slice is', 'slices are')} no volume, {MINIMUM_SLICES} are needed"
    if len(distinct) < len(places):
        at = counted(len(distinct), "place")
        return f"4-D: {len(places)} images at {at} (phases, repetitions or echoes)"
    steps = np.diff(distinct)
    usual = float(np.median(steps))
    gaps = np.flatnonzero(np.abs(steps - usual) > max(0.1 * usual, 0.05))
    if len(gaps):
        return (
            f"slices are not evenly spaced: {steps[gaps[0]]:.2f} mm after slice {gaps[0] + 1}, {usual:.2f} mm elsewhere"
        )
    return ""


def line_problem(positions: np.ndarray) -> str:
    """Why slices at ``positions`` (N, 3), mm in order, are not stacked along one line; an empty text when they are."""
    share = np.linspace(0, 1, len(positions))[:, None]
    beside = np.linalg.norm(positions - (positions[0] + share * (positions[-1] - positions[0])), axis=1)
    worst = int(beside.argmax())
    step = float(np.linalg.norm(positions[-1] - positions[0])) / (len(positions) - 1)
    if beside[worst] <= max(_BESIDE_MM, 0.25 * step):
        return ""
    return f"its slices are no straight stack: slice {worst + 1} lies {beside[worst]:.1f} mm beside its place"


def placed(image: SourceImage, orientation: np.ndarray, positions: np.ndarray, spacing: list[float]) -> SourceImage:
    """``image`` with its affine: ``orientation`` (2, 3), ``positions`` (N, 3) in order, row and column spacing."""
    affine = np.eye(4)
    affine[:3, 0] = orientation[0] * spacing[1]  # along a row: the distance of columns
    affine[:3, 1] = orientation[1] * spacing[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    affine[:3, 3] = positions[0]
    ras = LPS_TO_RAS @ affine
    x, y, z = np.linalg.norm(ras[:3, :3], axis=0).tolist()
    return replace(image, affine=tuple(tuple(row) for row in ras.tolist()), spacing=(x, y, z))


def _refuse(image: SourceImage, why: str) -> SourceImage:
    return replace(image, refused=why)
