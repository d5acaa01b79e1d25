"""Enhanced (multi-frame) MR objects: one file per series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medmap_monai.clinical.dicom_series import line_problem, placed, stack_problem
from medmap_monai.clinical.extras import need
from medmap_monai.clinical.recognise import SequenceFacts
from medmap_monai.clinical.source import DICOM, SourceImage


def enhanced_image(path: Path, key: str, label: str) -> SourceImage:
    """The image of one enhanced MR file; refused where its frames are not one volume in order."""
    pydicom = need("pydicom", "dicom", "reading DICOM")
    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    frames = list(header.get("PerFrameFunctionalGroupsSequence", None) or [])
    shared = (header.get("SharedFunctionalGroupsSequence", None) or [None])[0]
    image = SourceImage(DICOM, label, (path,), _facts(header, shared, frames), key)
    try:
        places = [_functional("PlanePositionSequence", f, shared).ImagePositionPatient for f in frames]
        turns = [_functional("PlaneOrientationSequence", f, shared).ImageOrientationPatient for f in frames]
        spacing = [float(v) for v in _functional("PixelMeasuresSequence", frames[0], shared).PixelSpacing]
    except (AttributeError, IndexError, TypeError):
        return replace(image, refused="its frames have no place in space")
    orientation = np.asarray([[float(v) for v in turn] for turn in turns])
    if np.abs(orientation - orientation[0]).max() > 0.01:
        return replace(image, refused="its frames have several orientations")
    scales = {_scale(frame, shared) for frame in frames}
    if len(scales) > 1:  # readers take those of the first for all
        return replace(image, refused=f"its frames have {len(scales)} different rescale slopes or intercepts")
    rows = orientation[0].reshape(2, 3)
    positions = np.asarray([[float(v) for v in place] for place in places])
    along = positions @ np.cross(rows[0], rows[1])
    if (np.diff(along) < 0).all():
        refused = stack_problem(along[::-1])
    else:
        refused = stack_problem(along) if (np.diff(along) > 0).all() else stack_problem(np.sort(along))
        if not refused and not (np.diff(along) > 0).all():
            refused = "its frames are not in the order of their places"
    refused = refused or line_problem(positions)
    if refused:
        return replace(image, refused=refused)
    return placed(image, rows, positions, spacing)


def _functional(name: str, frame: Any, shared: Any) -> Any:
    for group in (frame, shared):
        found = group.get(name, None) if group is not None else None
        if found:
            return found[0]
    raise AttributeError(name)


def _scale(frame: Any, shared: Any) -> tuple[float, float]:
    """Rescale slope and intercept of a frame."""
    try:
        found = _functional("PixelValueTransformationSequence", frame, shared)
    except AttributeError:
        return 1.0, 0.0
    return float(found.get("RescaleSlope", 1) or 1), float(found.get("RescaleIntercept", 0) or 0)


def _facts(header: Any, shared: Any, frames: list[Any]) -> SequenceFacts:
    def value(sequence: str, name: str) -> Any:
        try:
            return _functional(sequence, frames[0] if frames else None, shared).get(name, None)
        except AttributeError:
            return header.get(name, None)

    def number(found: Any) -> float | None:
        if isinstance(found, list | tuple) or hasattr(found, "__iter__"):
            found = found[0] if len(found) else None
        return None if found in (None, "") else float(found)

    agents = header.get("ContrastBolusAgentSequence", None)
    agent = header.get("ContrastBolusAgent", None) or (str(agents[0].get("CodeMeaning", "agent")) if agents else None)
    return SequenceFacts(
        description=str(header.get("SeriesDescription", "") or ""),
        protocol=str(header.get("ProtocolName", "") or ""),
        echo_time=number(value("MREchoSequence", "EffectiveEchoTime") or header.get("EchoTime", None)),
        repetition_time=number(value("MRTimingAndRelatedParametersSequence", "RepetitionTime")),
        inversion_time=number(value("MRModifierSequence", "InversionTimes")),
        contrast_agent=None if agent is None else str(agent),
        image_type=tuple(str(v) for v in header.get("ImageType", None) or ()),
    )
