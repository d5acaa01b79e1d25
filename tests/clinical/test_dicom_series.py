"""DICOM files -> series, in order and in place; what is no volume is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from medmap_monai.clinical.choose import choose_images
from medmap_monai.clinical.dicom_series import is_dicom, read_series
from medmap_monai.clinical.find_studies import find_studies
from medmap_monai.clinical.read_image import read_image
from medmap_monai.clinical.source import SourceImage
from medmap_monai.clinical.volume import Volume
from tests.clinical.scanner import native_head, rigid, write_dicom, write_dicom_study


@pytest.fixture
def oblique() -> Volume:
    rng = np.random.default_rng(3)
    affine = rigid((10, -20, 5), (30, -40, 12)) @ np.diag([-0.9, -0.9, 5.5, 1])
    return Volume(rng.integers(0, 2000, (20, 24, 10)).astype(np.float32), affine)


def only(folder: Path) -> SourceImage:
    (study,) = read_series(sorted(folder.iterdir()))
    (image,) = study.images
    return image


def test_voxels_and_place_survive(oblique: Volume, tmp_path: Path) -> None:
    files = write_dicom(tmp_path, oblique, "t2_tse_tra", generate_uid())
    assert all(is_dicom(path) for path in files)
    image = only(tmp_path)
    assert not image.refused
    assert image.facts.description == "t2_tse_tra"
    read = read_image(image)
    np.testing.assert_array_equal(read.data, oblique.data)
    np.testing.assert_allclose(read.affine, oblique.affine, atol=1e-4)


def test_the_order_of_slices_is_that_of_their_places(oblique: Volume, tmp_path: Path) -> None:
    """Slices whose numbers run against the normal give the same voxels at the same places."""
    turned = Volume(oblique.data[:, :, ::-1].copy(), oblique.affine @ np.diag([1, 1, -1, 1]))
    turned.affine[:3, 3] = (oblique.affine @ [0, 0, 9, 1])[:3]
    write_dicom(tmp_path, turned, "t2_tse_tra", generate_uid())
    read = read_image(only(tmp_path))
    place = np.linalg.inv(read.affine) @ oblique.affine @ [3, 5, 7, 1]
    i, j, k = np.rint(place[:3]).astype(int)
    assert read.data[i, j, k] == oblique.data[3, 5, 7]


def test_a_file_that_was_exported_twice_counts_once(oblique: Volume, tmp_path: Path) -> None:
    files = write_dicom(tmp_path, oblique, "t2_tse_tra", generate_uid())
    (tmp_path / "copy.dcm").write_bytes(files[0].read_bytes())
    assert len(only(tmp_path).files) == 10


def test_what_is_no_volume_is_refused(oblique: Volume, tmp_path: Path) -> None:
    study = generate_uid()
    repeated = write_dicom(tmp_path / "phases", oblique, "phases", study)
    again = pydicom.dcmread(repeated[0])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    again.save_as(tmp_path / "phases" / "second.dcm")
    gap = write_dicom(tmp_path / "gap", oblique, "gap", study)
    gap[4].unlink()
    few = Volume(oblique.data[:, :, :3], oblique.affine)
    write_dicom(tmp_path / "few", few, "few", study)
    report = pydicom.dcmread(gap[0])
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.7", "OT"
    report.SeriesInstanceUID, report.SeriesDescription = generate_uid(), "screen"
    report.save_as(tmp_path / "screen.dcm")
    (found,) = read_series(sorted(path for path in tmp_path.rglob("*") if path.is_file()))
    refused = {image.label: image.refused for image in found.images}
    assert refused["phases"] == "4-D: 11 images at 10 places (phases, repetitions or echoes)"
    assert "not evenly spaced: 11.00 mm after slice 4, 5.50 mm elsewhere" in refused["gap"]
    assert refused["few"] == "3 slices are no volume, 8 are needed"
    assert refused["screen"] == "no MR image (Modality OT)"


def test_two_echoes_in_one_series_are_two_images(oblique: Volume, tmp_path: Path) -> None:
    study = generate_uid()
    first = write_dicom(tmp_path / "a", oblique, "AX SE", study, EchoTime=15, RepetitionTime=3000)
    series = pydicom.dcmread(first[0]).SeriesInstanceUID
    for path in write_dicom(tmp_path / "b", oblique, "AX SE", study, EchoTime=95, RepetitionTime=3000):
        second = pydicom.dcmread(path)
        second.SeriesInstanceUID = series
        second.save_as(path)
    (found,) = find_studies(tmp_path)
    assert sorted(image.facts.echo_time or 0 for image in found.images) == [15, 95]
    choice = choose_images(found)
    assert choice.images["t2"].facts.echo_time == 95
    assert len(choice.unclear) == 1  # proton density


def test_an_enhanced_object_is_one_image(oblique: Volume, tmp_path: Path) -> None:
    legacy = pytest.importorskip("highdicom.legacy", reason="highdicom (extra 'dicom') is not installed")
    files = write_dicom(tmp_path / "old", oblique, "t2_tse_tra", generate_uid(), EchoTime=95, RepetitionTime=4000)
    ordered = sorted((pydicom.dcmread(p) for p in files), key=lambda ds: ds.InstanceNumber)
    enhanced = legacy.LegacyConvertedEnhancedMRImage(ordered, generate_uid(), 5, generate_uid(), 1)
    enhanced.SeriesDescription = "t2_tse_tra"
    (tmp_path / "new").mkdir()
    enhanced.save_as(tmp_path / "new" / "one.dcm")
    image = only(tmp_path / "new")
    assert not image.refused, image.refused
    read = read_image(image)
    # frames may be stored in either order: every voxel is where it was
    voxels = np.argwhere(np.ones(oblique.data.shape, dtype=bool))[::37]
    world = np.c_[voxels, np.ones(len(voxels))] @ oblique.affine.T
    i, j, k = np.rint(world @ np.linalg.inv(read.affine).T).astype(int)[:, :3].T
    np.testing.assert_array_equal(read.data[i, j, k], oblique.data[tuple(voxels.T)])


def test_studies_are_told_apart_and_named(phantom_cohort: Path, tmp_path: Path) -> None:
    heads = native_head(phantom_cohort / "BraTS20_Training_001", ("flair",))
    for name in ("pat 1", "pat 2"):
        write_dicom_study(tmp_path / "two" / name, heads)
    assert [study.name for study in find_studies(tmp_path / "two")] in (["pat_1", "pat_2"], ["pat_2", "pat_1"])
    uids = [write_dicom_study(tmp_path / "mixed" / "IMAGES" / part, heads) for part in "ab"]
    names = {study.name for study in find_studies(tmp_path / "mixed")}
    assert len(names) == len(uids) == 2
    assert all(name.startswith("study-") for name in names)
    write_dicom_study(tmp_path / "export", heads)
    assert [study.name for study in find_studies(tmp_path / "export")] == ["export"]


def test_one_broken_header_does_not_end_the_search(oblique: Volume, tmp_path: Path) -> None:
    study = generate_uid()
    write_dicom(tmp_path / "good", oblique, "t2_tse_tra", study)
    for path in write_dicom(tmp_path / "two echoes", oblique, "t1_se_tra", study):
        two = pydicom.dcmread(path)
        two.EchoTime = ["10", "90"]
        two.save_as(path)
    for path in write_dicom(tmp_path / "broken", oblique, "flair", study):
        broken = pydicom.dcmread(path)
        broken.add_new(0x00200037, "LO", "a\\b\\c")
        broken.save_as(path)
    (found,) = find_studies(tmp_path)
    refused = {image.label: image.refused for image in found.images}
    assert refused.pop("series 1" if "series 1" in refused else "flair")
    assert refused == {"t2_tse_tra": "", "t1_se_tra": ""}


def test_slices_that_are_no_straight_stack_are_refused(oblique: Volume, tmp_path: Path) -> None:
    for number, path in enumerate(write_dicom(tmp_path, oblique, "t2_tse_tra", generate_uid())):
        moved = pydicom.dcmread(path)
        if number >= 5:
            along = np.asarray([float(v) for v in moved.ImageOrientationPatient[:3]])
            place = np.asarray([float(v) for v in moved.ImagePositionPatient]) + 10 * along
            moved.ImagePositionPatient = [f"{v:.6f}" for v in place]
            moved.save_as(path)
    assert "no straight stack" in only(tmp_path).refused


def test_frames_that_are_scaled_differently_are_refused(oblique: Volume, tmp_path: Path) -> None:
    """Readers take slope and intercept of the first frame for all."""
    legacy = pytest.importorskip("highdicom.legacy", reason="highdicom (extra 'dicom') is not installed")
    slices = [pydicom.dcmread(path) for path in write_dicom(tmp_path / "old", oblique, "t2_tse_tra", generate_uid())]
    for number, one in enumerate(slices):
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = str(1 + number), "0", "US"
    (tmp_path / "new").mkdir()
    legacy.LegacyConvertedEnhancedMRImage(slices, generate_uid(), 5, generate_uid(), 1).save_as(
        tmp_path / "new" / "one.dcm"
    )
    assert only(tmp_path / "new").refused == "its frames have 10 different rescale slopes or intercepts"
