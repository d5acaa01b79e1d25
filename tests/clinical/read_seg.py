"""DICOM SEG objects, read by others than who wrote them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmap_monai.clinical.volume import LPS_TO_RAS, Volume


def label_values(record: Path) -> dict[str, int]:
    """Class -> value in the label maps, from the JSON that ``medmap predict`` writes beside them."""
    content = json.loads(record.read_text(encoding="utf-8"))
    return {name: content["label_values"][str(index)] for index, name in enumerate(content["classes"]) if index}


def check_reads_back(path: Path, labels: Volume, values: Mapping[str, int]) -> Any:
    """Every segment holds exactly the voxels of its class, at their places; returns the object, as highdicom reads it.

    Args:
        path: the DICOM SEG.
        labels: the label map on the grid of the same series.
        values: class -> value in ``labels``.
    """
    hd = pytest.importorskip("highdicom", reason="highdicom (extra 'dicom') is not installed")
    seg = hd.seg.segread(path)
    assert seg.SeriesDescription.startswith("RESEARCH")
    assert seg.ContentLabel == "RESEARCH"
    volume = seg.get_volume(combine_segments=False)
    affine = LPS_TO_RAS @ volume.affine  # axes are slices, rows, columns of what is stored
    numbers = {}
    for segment in seg.SegmentSequence:
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
        assert segment.AnatomicRegionSequence[0].CodeMeaning == "Brain"
        numbers[segment.TrackingID.split()[-1]] = segment.SegmentNumber
    assert set(numbers) == {name for name, value in values.items() if (labels.data == value).any()}
    for name, number in numbers.items():
        places = np.argwhere(volume.array[..., number - 1])
        world = np.c_[places, np.ones(len(places))] @ affine.T
        voxels = np.rint(world @ np.linalg.inv(labels.affine).T).astype(int)[:, :3]
        expected = np.argwhere(labels.data == values[name])
        assert {tuple(v) for v in voxels.tolist()} == {tuple(v) for v in expected.tolist()}
    return seg


def check_with_dciodvfy(paths: Iterable[Path]) -> None:
    """The validator finds no error; skips the test where it is not installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian's dicom3tools)")
    for path in sorted(paths):
        done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
        told = (done.stdout + done.stderr).splitlines()
        assert any("SegmentationStorage" in line or "Segmentation" in line for line in told), told
        errors = [line for line in told if line.startswith("Error")]
        assert errors == [], "\n".join(errors)
