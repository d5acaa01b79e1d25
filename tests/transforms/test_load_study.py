from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate

from medmap_monai.data.editions import get_edition
from medmap_monai.data.study import ImageSource, Study, StudyError
from medmap_monai.transforms.label_values import map_label_values
from medmap_monai.transforms.load_study import LoadStudy, LoadStudyd
from tests.transforms.make_study import MODALITIES, OBLIQUE, make_study, voxels, write_volume


def test_stacks_what_exists_in_the_configured_order(tmp_path):
    study = make_study(tmp_path, ("t2", "flair"))
    loaded = LoadStudy(MODALITIES)(study)
    image = loaded["image"]
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.float32
    assert loaded["present_mask"].tolist() == loaded["modality_mask"].tolist() == [True, False, False, True]
    assert loaded["present_mask"].dtype == torch.bool
    np.testing.assert_array_equal(image[0], voxels(study.images["flair"].path))
    np.testing.assert_array_equal(image[3], voxels(study.images["t2"].path))
    assert not image[1:3].any()
    assert np.abs(np.asarray(image.affine) - nib.load(study.images["flair"].path).affine).max() == 0


def test_another_order_is_another_order(tmp_path):
    study = make_study(tmp_path)
    forward, backward = LoadStudy(MODALITIES)(study), LoadStudy(MODALITIES[::-1])(study)
    assert torch.equal(forward["image"].as_tensor(), backward["image"].as_tensor().flip(0))


def test_is_named_after_the_case_and_remembers_the_reference_file(tmp_path):
    study = make_study(tmp_path, ("t1", "t2"))
    loaded = LoadStudy(MODALITIES)(study)
    for key in ("image", "label"):
        assert loaded[key].meta["filename_or_obj"] == "case.01.nii.gz"
        assert loaded[key].meta["reference"] == "t1"
    assert loaded["case_id"] == "case.01"


@pytest.mark.parametrize("edition", ["brats2020", "brats2023", "brats2024-post", "msd_task01", "myops2020"])
def test_labels_become_classes(tmp_path, edition):
    names = get_edition(edition).modalities
    study = make_study(tmp_path, names, edition=edition)
    label = LoadStudy(names)(study)["label"]
    assert label.dtype == torch.uint8
    assert label.shape == (1, 12, 14, 10)
    on_disk = voxels(study.label)
    for value, index in get_edition(edition).labels.items():
        assert np.array_equal(np.asarray(label[0]) == index, on_disk == value)


def test_byte_order_and_scaling_of_a_file_do_not_matter(tmp_path):
    study = make_study(tmp_path, ("flair",))
    expected = LoadStudy(MODALITIES)(study)
    for path in (study.images["flair"].path, study.label):
        header = nib.Nifti1Header(endianness=">")
        image = nib.Nifti1Image(voxels(path), nib.load(path).affine, header)
        nib.save(image, path)
        assert nib.load(path).header.endianness == ">"
    again = LoadStudy(MODALITIES)(study)
    assert torch.equal(expected["image"].as_tensor(), again["image"].as_tensor())
    assert torch.equal(expected["label"].as_tensor(), again["label"].as_tensor())
    scaled = nib.Nifti1Image(np.arange(1680, dtype=np.int16).reshape(12, 14, 10), OBLIQUE)
    scaled.header.set_slope_inter(0.5, 3)
    nib.save(scaled, study.images["flair"].path)
    stored = np.asarray(nib.load(study.images["flair"].path).dataobj)
    np.testing.assert_array_equal(LoadStudy(MODALITIES)(study)["image"][0], stored.astype(np.float32))


def test_msd_channels_come_from_one_file(tmp_path):
    edition = get_edition("msd_task01")
    data = np.random.default_rng(0).uniform(1, 2, (6, 5, 4, 4)).astype(np.float32)
    path = write_volume(tmp_path / "BRATS_001.nii.gz", data)
    study = Study("BRATS_001", {m: ImageSource(path, c) for m, c in edition.channels.items()}, None, edition.name)
    image = LoadStudy(MODALITIES)(study)["image"]
    for i, name in enumerate(MODALITIES):
        np.testing.assert_array_equal(image[i], data[..., edition.channels[name]])


def test_what_the_split_does_not_grant_is_never_read(tmp_path):
    study = make_study(tmp_path)
    granted = ("flair", "t1")
    expected = LoadStudy(MODALITIES)(study, granted)
    for name in set(MODALITIES) - set(granted):
        study.images[name].path.write_bytes(b"not even an image")
    again = LoadStudy(MODALITIES)(study, granted)
    assert torch.equal(expected["image"].as_tensor(), again["image"].as_tensor())
    assert again["present_mask"].tolist() == [True, False, True, False]
    with pytest.raises(StudyError):
        LoadStudy(MODALITIES)(study)


@pytest.mark.parametrize(
    ("availability", "present", "kept"),
    [("enforce", [False, False, True, False], False), ("ignore", [True] * 4, False), ("defer", [True] * 4, True)],
)
def test_dictionary_version_and_availability(tmp_path, availability, present, kept):
    item = {"study": make_study(tmp_path), "available": ("t1",), "fold": "train"}
    loaded = LoadStudyd(MODALITIES, availability)(item)
    assert loaded["present_mask"].tolist() == present
    assert ("available" in loaded) == kept
    assert "study" not in loaded
    assert "study" in item
    assert loaded["fold"] == "train"


@pytest.mark.parametrize(("available", "names"), [((), ("flair",)), (("t2",), ("flair",)), (None, ())])
def test_a_study_with_nothing_to_load_is_an_error(tmp_path, available, names):
    study = make_study(tmp_path, names, label=False)
    with pytest.raises(StudyError, match=r"case case\.01: no modality to load"):
        LoadStudy(MODALITIES)(study, available)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _corrupt(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("harm", [_truncate, _corrupt, lambda p: p.write_bytes(b""), lambda p: p.unlink()])
def test_an_unreadable_file_is_named(tmp_path, harm):
    study = make_study(tmp_path)
    path = study.images["t1"].path
    harm(path)
    with pytest.raises(StudyError, match="cannot be read") as error:
        LoadStudy(MODALITIES)(study)
    assert error.value.path == path
    assert "case.01" in str(error.value)


def test_a_truncated_file_without_compression_is_named(tmp_path):
    study = make_study(tmp_path, ("flair",), label=False)
    plain = tmp_path / "flair.nii"
    nib.save(nib.load(study.images["flair"].path), plain)
    _truncate(plain)
    with pytest.raises(StudyError, match=r"flair\.nii: cannot be read"):
        LoadStudy(MODALITIES)(dataclasses.replace(study, images={"flair": ImageSource(plain)}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_an_error(tmp_path, value):
    study = make_study(tmp_path)
    data = voxels(study.images["t2"].path).astype(np.float64)
    data[3, 4, 5] = value
    write_volume(study.images["t2"].path, data)
    with pytest.raises(StudyError, match=r"t2\.nii\.gz: holds 1 value that is NaN or Inf"):
        LoadStudy(MODALITIES)(study)


@pytest.mark.parametrize("shape", [(12, 14, 10, 2), (12, 14)])
def test_wrong_number_of_dimensions_is_an_error(tmp_path, shape):
    study = make_study(tmp_path)
    write_volume(study.images["t1"].path, np.ones(shape, np.float32))
    with pytest.raises(StudyError, match="a 3-D volume is expected"):
        LoadStudy(MODALITIES)(study)


def test_a_channel_that_does_not_exist_is_an_error(tmp_path):
    path = write_volume(tmp_path / "a.nii.gz", np.ones((4, 4, 4, 2), np.float32))
    with pytest.raises(StudyError, match="with a channel 2 is expected"):
        LoadStudy(("flair",))(Study("a", {"flair": ImageSource(path, 2)}))


def test_grids_that_differ_are_an_error_with_both_geometries(tmp_path):
    study = make_study(tmp_path)
    write_volume(study.images["t1ce"].path, voxels(study.images["t1ce"].path)[:, :, :9])
    with pytest.raises(StudyError, match="medmap prepare registers") as error:
        LoadStudy(MODALITIES)(study)
    assert "--resample" not in str(error.value)
    assert "t1ce has shape (12, 14, 9), flair has (12, 14, 10)" in str(error.value)
    assert str(error.value).count("affine") == 2


@pytest.mark.parametrize(("shift", "fine"), [(5e-4, True), (2e-3, False)])
def test_affines_may_differ_by_a_thousandth(tmp_path, shift, fine):
    study = make_study(tmp_path, affine=np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = shift
    write_volume(study.images["t2"].path, voxels(study.images["t2"].path), moved)
    if fine:
        LoadStudy(MODALITIES)(study)
    else:
        with pytest.raises(StudyError, match="t2 and flair lie differently in space"):
            LoadStudy(MODALITIES)(study)


def _coordinate(shape, affine):
    """A volume whose value is a linear function of the position in the world: linear resampling keeps it exactly."""
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)])
    world = np.einsum("ij,jxyz->ixyz", affine, index)
    return (100 + world[0] + 2 * world[1] - world[2]).astype(np.float32)


@pytest.mark.parametrize("flip", [False, True])
def test_resampling_follows_the_geometry(tmp_path, flip):
    study = make_study(tmp_path, ("flair",), label=False)
    other_shape = (30, 36, 33)
    other = np.diag([0.7, 0.8, 0.9, 1.0])
    if flip:
        other = np.array([[0, -0.7, 0, 0], [0.8, 0, 0, 0], [0, 0.1, -0.9, 0], [0, 0, 0, 1.0]])
    centre = np.array([6, 7, 5, 1.0])
    other[:3, 3] += (OBLIQUE @ centre)[:3] - (other @ np.array([15, 18, 16, 1.0]))[:3]
    moving = write_volume(tmp_path / "t2.nii.gz", _coordinate(other_shape, other), other)
    study = dataclasses.replace(study, images={**study.images, "t2": ImageSource(moving)})
    loaded = LoadStudy(MODALITIES, resample=True)(study)
    assert loaded["image"].meta["notes"] == ["resampled t2 to the grid of flair"]
    assert loaded["image"].meta["resampled"] == "t2"
    expected = _coordinate((12, 14, 10), OBLIQUE)
    inside = np.zeros(expected.shape, bool)
    inside[3:9, 4:10, 3:7] = True
    np.testing.assert_allclose(np.asarray(loaded["image"][3])[inside], expected[inside], atol=2e-3)


def test_a_resampled_label_holds_no_new_values(tmp_path):
    study = make_study(tmp_path)
    finer = OBLIQUE.copy()
    finer[:3, :3] /= 2
    values = np.random.default_rng(1).choice([0, 4], size=(24, 28, 20)).astype(np.uint8)
    write_volume(study.label, values, finer)
    with pytest.raises(StudyError, match="label has shape"):
        LoadStudy(MODALITIES)(study)
    loaded = LoadStudy(MODALITIES, resample=True)(study)
    assert loaded["image"].meta["notes"] == ["resampled the label to the grid of flair"]
    label = loaded["label"]
    assert set(label.unique().tolist()) == {0, 3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 3], "unexpected label value 3; edition brats2020 allows [0, 1, 2, 4]"),
        ([0, -1, 4000], "unexpected label value -1, 4000; edition brats2020 allows [0, 1, 2, 4]"),
        ([0.0, 1.5, 2.0], "label value 1.5 is not an integer"),
    ],
)
def test_label_values_that_the_edition_does_not_know_are_named(tmp_path, values, message):
    study = make_study(tmp_path)
    data = np.zeros((12, 14, 10), np.float32 if isinstance(values[0], float) else np.int16)
    data[0, 0, :3] = values
    write_volume(study.label, data)
    with pytest.raises(StudyError) as error:
        LoadStudy(MODALITIES)(study)
    assert message in str(error.value)
    assert error.value.path == study.label


def test_float_labels_with_whole_values_are_fine():
    values = np.array([[[0.0, 1.0, 4.0]]])
    classes = map_label_values(values, get_edition("brats2020"), "a", None)
    assert classes.tolist() == [[[0, 1, 3]]]


def test_label_options(tmp_path):
    study = make_study(tmp_path)
    study.label.write_bytes(b"broken")
    assert "label" not in LoadStudy(MODALITIES, label="none")(study)
    without = dataclasses.replace(study, label=None)
    assert "label" not in LoadStudy(MODALITIES)(without)
    with pytest.raises(StudyError, match="has no label file"):
        LoadStudy(MODALITIES, label="required")(without)
    with pytest.raises(ValueError, match="optional"):
        LoadStudy(MODALITIES, label="maybe")


def test_an_edition_of_ones_own_decides_label_values(tmp_path):
    study = make_study(tmp_path)
    data = np.full((12, 14, 10), 7, np.uint8)
    write_volume(study.label, data)
    own = get_edition("brats2020").with_labels({0: 0, 7: 2})
    assert LoadStudy(MODALITIES, edition=own)(study)["label"].unique().tolist() == [2]


def test_samples_of_different_studies_collate_and_come_apart(tmp_path):
    studies = [make_study(tmp_path, names, case_id=c) for names, c in ((MODALITIES, "a"), (("t2",), "b"))]
    batch = list_data_collate([LoadStudyd(MODALITIES)({"study": s, "available": None}) for s in studies])
    assert batch["present_mask"].tolist() == [[True] * 4, [False, False, False, True]]
    parts = decollate_batch(batch)
    assert [p["image"].meta["case_id"] for p in parts] == ["a", "b"]
    assert parts[1]["image"].meta["edition"] == "brats2020"
