"""The real study as a DICOM export: the whole path with the bundle that comes along, up to DICOM SEG on its slices.

The export gives the same voxels at the same places, but for the rounding of numbers written as text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy.ndimage import center_of_mass, label
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.clinical.choose import choose_images
from medmap_monai.clinical.find_studies import find_studies
from medmap_monai.clinical.read_image import read_image
from medmap_monai.clinical.study_figures import to_lps
from medmap_monai.clinical.volume import Volume, read_nifti
from tests.clinical.conftest import RealRun
from tests.clinical.read_seg import check_reads_back, check_with_dciodvfy, label_values
from tests.clinical.real_study import MODALITIES, native_files, to_own
from tests.clinical.scanner import DESCRIPTIONS, load, write_dicom_study

STARTER = Path(__file__).resolve().parents[2] / "bundles" / "brats_starter"


@dataclass(frozen=True)
class Export:
    """folder: what a PACS hands out. output: what ``medmap predict --prepare`` made of it. told: what it said."""

    folder: Path
    uid: str
    output: Path
    told: str

    def native(self, modality: str) -> Volume:
        """The label map on the grid of a series."""
        return load(self.output / "visit" / "native" / f"visit_{modality}_seg.nii.gz")


@pytest.fixture(scope="module")
def scans() -> dict[str, Volume]:
    return {name: read_nifti(path) for name, path in native_files().items()}


@pytest.fixture(scope="module")
def export(scans: dict[str, Volume], prepared_real: RealRun, tmp_path_factory: pytest.TempPathFactory) -> Export:
    if not (STARTER / "models" / "model.pt").is_file():
        pytest.skip("brats_starter has no weights here")
    root = tmp_path_factory.mktemp("real-dicom")
    uid = write_dicom_study(root / "export" / "visit", scans)
    command = ["predict", str(root / "export"), "--prepare", "--bundle", str(STARTER), "--trust"]
    done = CliRunner().invoke(app, [*command, "--device", "cpu", "--output", str(root / "out")])
    assert done.exit_code == 0, done.output
    return Export(root / "export", uid, root / "out", done.output)


def test_series_are_sorted_and_recognised(export: Export, scans: dict[str, Volume]) -> None:
    (study,) = find_studies(export.folder)
    choice = choose_images(study)
    assert {name: image.label for name, image in choice.images.items()} == DESCRIPTIONS
    assert not choice.unclear
    for name, image in choice.images.items():
        read, written = to_lps(read_image(image)), to_lps(scans[name])
        np.testing.assert_array_equal(read.data, written.data)
        np.testing.assert_allclose(read.affine, written.affine, atol=1e-3)


def test_sequences_lie_where_those_of_the_nifti_files_lie(export: Export, prepared_real: RealRun) -> None:
    record = json.loads((export.output / "prepared" / "visit" / "prepared.json").read_text())
    assert record["reference"] == prepared_real.prepared.reference
    assert not record["warnings"]
    assert record["skull_strip"]["brain_ml"] == pytest.approx(prepared_real.prepared.skull["brain_ml"], rel=0.01)
    corners = np.array([[x, y, z, 1.0] for x in (-60, 60) for y in (-60, 60) for z in (-60, 60)])
    for name in MODALITIES:
        found = np.asarray(record["sequences"][name]["reference_to_own_world"])
        apart = (found - to_own(prepared_real.prepared, name)) @ corners.T
        assert np.linalg.norm(apart[:3], axis=0).mean() < 0.5, name  # mm


def test_every_series_gets_a_segmentation_on_its_own_slices(export: Export, scans: dict[str, Volume]) -> None:
    assert "4 label maps on original images, 4 DICOM SEG" in export.told
    values = label_values(export.output / "visit_seg.json")
    (study,) = find_studies(export.folder)
    files = {name: image.files for name, image in choose_images(study).images.items()}
    for name in MODALITIES:
        labels = export.native(name)
        assert labels.data.shape == scans[name].data.shape
        seg = check_reads_back(export.output / "visit" / "dicom" / f"visit_{name}_seg.dcm", labels, values)
        assert seg.StudyInstanceUID == export.uid
        slices = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files[name]}
        (series,) = seg.ReferencedSeriesSequence
        referenced = {str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence}
        assert referenced
        assert referenced <= slices


def test_the_validator_finds_no_error(export: Export) -> None:
    check_with_dciodvfy((export.output / "visit" / "dicom").glob("*.dcm"))


def test_the_label_maps_lie_on_the_tumour(export: Export, scans: dict[str, Volume], prepared_real: RealRun) -> None:
    """The largest piece: bright on FLAIR, in the right frontal lobe, and at one place in all four sequences."""
    brain = prepared_real.prepared.mask
    assert brain is not None
    centres = {}
    for name in MODALITIES:
        labels = export.native(name)
        pieces, count = label(labels.data > 0)
        assert count
        tumour = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        assert 5 < tumour.sum() * labels.voxel_ml < 60
        own = labels.affine @ [*center_of_mass(tumour), 1]
        centres[name] = (np.linalg.inv(to_own(prepared_real.prepared, name)) @ own)[:3]
        if name == "flair":
            to_reference = np.linalg.inv(to_own(prepared_real.prepared, name))
            inside = brain.on_grid(labels.data.shape, labels.affine, to_reference, "nearest") > 0
            flair = to_scan(scans[name], labels)
            assert np.median(flair[tumour]) > 1.3 * np.median(flair[inside])
    for one in centres.values():
        assert np.linalg.norm(one - centres["t1ce"]) < 6, centres
    middle = brain.affine @ [*center_of_mass(brain.data), 1]
    assert centres["t1ce"][0] - middle[0] > 20  # RAS: towards the patient's right
    assert centres["t1ce"][1] - middle[1] > 10  # in front


def to_scan(scan: Volume, labels: Volume) -> np.ndarray:
    """The scan in the order in which the series' voxels are stored."""
    return scan.on_grid(labels.data.shape, labels.affine, interpolation="nearest")


def test_the_page_names_every_series(export: Export) -> None:
    page = (export.output / "visit" / "report.html").read_text(encoding="utf-8")
    for words in (*DESCRIPTIONS.values(), "brats_starter", "RESEARCH USE ONLY", "deepbet"):
        assert words.replace("+", "&#43;") in page or words in page, words
    assert "Mustermann" not in page
