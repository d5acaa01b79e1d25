from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, SpatialPadd

from medmap_monai.data.editions import get_edition
from medmap_monai.transforms import restore
from medmap_monai.transforms.pipelines import eval_transforms, save_transforms
from medmap_monai.transforms.restore import RestoreToOriginal, SaveLabelMap, disk_label_values
from medmap_monai.utils.output import label_map_path
from tests.transforms.make_study import MODALITIES, OBLIQUE, make_study, voxels

_ROTATED = np.array([[0, -1.5, 0, 12.5], [0, 0, 2.0, -3.25], [-1.25, 0, 0, 7.0], [0, 0, 0, 1]])
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LPS[:3, 3] = [90, 126, -72]
AFFINES = {"oblique": OBLIQUE, "reordered": _ROTATED, "lps": _LPS}


def _through_model(study, *extra, **options):
    """The label itself, taken through the whole way into model space, batched as an engine does it."""
    transform = Compose([*eval_transforms(MODALITIES, **options).transforms, *extra])
    return decollate_batch(list_data_collate([transform({"study": study, "available": None})]))[0]["label"]


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("orientation", [None, "RAS", "LPS", "SAR"])
@pytest.mark.parametrize("pad", [None, 24])
def test_round_trip_is_exact(tmp_path, affine, orientation, pad):
    study = make_study(tmp_path, affine=AFFINES[affine])
    extra = [] if pad is None else [SpatialPadd(("image", "label"), spatial_size=pad)]
    label = _through_model(study, *extra, orientation=orientation)
    saved = nib.load(save_transforms(tmp_path / "out")({"pred": label})["saved_to"])
    original = nib.load(study.images["flair"].path)
    assert saved.shape == original.shape
    assert np.abs(saved.affine - original.affine).max() == 0.0
    np.testing.assert_array_equal(np.asarray(saved.dataobj), voxels(study.label))


def test_what_a_crop_cut_off_is_background(tmp_path):
    study = make_study(tmp_path, shape=(150, 12, 9))
    data = voxels(study.images["flair"].path)
    first, last = np.flatnonzero(data.any(axis=(1, 2)))[[0, -1]]
    label = _through_model(study, protocol="legacy")
    assert label.shape[1] == last - first
    restored = RestoreToOriginal()(label)
    expected = np.vectorize(get_edition("brats2020").labels.get)(voxels(study.label))
    expected[:first] = 0
    expected[last:] = 0
    np.testing.assert_array_equal(restored[0], expected)


@pytest.mark.parametrize(("sform_code", "qform_code"), [(1, 0), (4, 1), (0, 1), (2, 3)])
def test_header_geometry_is_kept_bit_for_bit(tmp_path, sform_code, qform_code):
    angle = 0.3
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned = turned @ np.diag([1.1, 0.9, 2.3, 1])
    turned[:3, 3] = [10.1, -7.7, 33.3]
    study = make_study(tmp_path, affine=turned, sform_code=sform_code, qform_code=qform_code)
    saved = nib.load(save_transforms(tmp_path)({"pred": _through_model(study, orientation="LAS")})["saved_to"])
    original = nib.load(study.images["flair"].path)
    for field in ("qform_code", "sform_code", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(saved.header[field], original.header[field])
    assert saved.header.get_xyzt_units() == original.header.get_xyzt_units()
    assert np.abs(saved.affine - original.affine).max() == 0.0


def test_other_voxel_size_comes_back_by_interpolation(tmp_path):
    study = make_study(tmp_path, affine=np.diag([1.0, 1.0, 1.0, 1.0]), shape=(24, 24, 24))
    sample = eval_transforms(MODALITIES, spacing=(1.5, 1.5, 1.5))({"study": study})
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in sample["image"].shape[1:]), indexing="ij")
    ball = torch.from_numpy((sum(a**2 for a in axes) < 0.5).astype(np.float32))
    meta = sample["image"].meta
    scores = MetaTensor(torch.stack([1 - ball, torch.zeros_like(ball), ball]), affine=sample["image"].affine, meta=meta)
    labels = MetaTensor(2 * ball[None], affine=sample["image"].affine, meta=meta)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 24, 24)), indexing="ij")
    expected = 2 * (sum(a**2 for a in axes) < 0.5)
    for prediction in (scores, labels):
        restored = RestoreToOriginal()(prediction)
        assert restored.shape == (1, 24, 24, 24)
        assert set(restored.unique().tolist()) == {0, 2}
        assert np.mean(np.asarray(restored[0]) != expected) < 0.03


def test_scores_become_the_class_of_the_highest_one(tmp_path):
    sample = eval_transforms(MODALITIES)({"study": make_study(tmp_path)})
    classes = sample["label"][0].as_tensor().long()
    scores = torch.nn.functional.one_hot(classes, 4).movedim(-1, 0).float()
    restored = RestoreToOriginal()(MetaTensor(scores, affine=sample["image"].affine, meta=sample["image"].meta))
    assert torch.equal(restored[0].as_tensor().long(), classes)
    assert restored.dtype == torch.uint8


@pytest.mark.parametrize(("edition", "dtype"), [("brats2020", np.uint8), ("myops2020", np.int16)])
def test_label_values_are_those_of_the_edition(tmp_path, edition, dtype):
    names = get_edition(edition).modalities
    study = make_study(tmp_path, names, edition=edition)
    sample = eval_transforms(names)({"study": study})
    saved = nib.load(save_transforms(tmp_path)({"pred": sample["label"]})["saved_to"])
    assert saved.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(saved.dataobj), voxels(study.label))


def test_an_edition_given_to_the_loader_decides_the_values(tmp_path):
    preprocessing = eval_transforms(MODALITIES, edition="brats2020")
    study = make_study(tmp_path, label=False, edition="brats2023")
    image = preprocessing({"study": study})["image"]
    prediction = MetaTensor(torch.full_like(image[:1].as_tensor(), 3), affine=image.affine, meta=image.meta)
    saved = save_transforms(tmp_path, preprocessing)({"pred": prediction})
    assert set(np.unique(voxels(saved["saved_to"]))) == {4}


def test_a_prediction_without_geometry_is_refused():
    for lost in (torch.zeros(1, 2, 2, 2), MetaTensor(torch.zeros(1, 2, 2, 2))):
        with pytest.raises(ValueError, match="lost the geometry"):
            RestoreToOriginal()(lost)


def test_save_refuses_what_was_not_restored_or_has_no_value(tmp_path):
    label = eval_transforms(MODALITIES)({"study": make_study(tmp_path)})["label"]
    with pytest.raises(ValueError, match="restore it"):
        SaveLabelMap(tmp_path)(label[:, 1:])
    with pytest.raises(ValueError, match=r"classes \[7\] have no label value in edition brats2020"):
        disk_label_values(np.array([0, 7]), get_edition("brats2020").disk_values, "brats2020")
    label.meta["case_id"] = "../elsewhere"
    with pytest.raises(ValueError, match="cannot be part of a file name"):
        SaveLabelMap(tmp_path)(label)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    label = eval_transforms(MODALITIES)({"study": make_study(tmp_path)})["label"]

    def interrupted(image, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(restore.nib, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SaveLabelMap(tmp_path / "out")(label)
    assert not label_map_path(tmp_path / "out", "case.01").exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_same_prediction_same_bytes(tmp_path):
    label = eval_transforms(MODALITIES)({"study": make_study(tmp_path)})["label"]
    first, second = (SaveLabelMap(tmp_path / name)(label).read_bytes() for name in ("a", "b"))
    assert first == second
