from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medmap_monai.data.editions import get_edition
from medmap_monai.transforms.pipelines import (
    AUGMENTATIONS,
    MODES,
    PROTOCOLS,
    eval_transforms,
    inference_transforms,
    train_transforms,
)
from tests.transforms.make_study import MODALITIES, make_study, write_volume

GRANTED = ("flair", "t2")


def _train(study, seed=0, available=GRANTED, **options):
    transform = train_transforms(MODALITIES, **options).set_random_state(seed)
    return transform({"study": study, "available": available})


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_training_sample_keeps_the_contract(tmp_path, protocol, mode, augment):
    study = make_study(tmp_path)
    masks = set()
    for seed in range(12):
        sample = _train(study, seed, protocol=protocol, mode=mode, augment=augment, roi_size=8)
        assert type(sample["image"]) is torch.Tensor
        assert type(sample["label"]) is torch.Tensor
        assert sample["image"].dtype == torch.float32
        assert sample["label"].dtype == torch.uint8
        assert sample["image"].shape == (4, 8, 8, 8)
        assert sample["label"].shape == (1, 8, 8, 8)
        assert sample["label"].max() <= 3
        assert set(sample) == {"image", "label", "present_mask", "modality_mask", "case_id"}
        present, visible = sample["present_mask"], sample["modality_mask"]
        assert present.tolist() == ([True] * 4 if mode == "pdt" else [True, False, False, True])
        assert visible.any()
        assert not (visible & ~present).any()
        assert not sample["image"][~present].any()
        assert all(channel.any() for channel in sample["image"][present])
        masks.add(tuple(visible.tolist()))
    assert len(masks) == 1 if mode == "idt" else len(masks) > 1


@pytest.mark.parametrize("mode", ["idt", "idt_drop"])
def test_what_is_not_granted_has_no_influence(tmp_path, mode):
    study = make_study(tmp_path)
    before = [_train(study, seed, mode=mode, roi_size=8) for seed in range(4)]
    write_volume(study.images["t1"].path, np.full((12, 14, 10), np.nan, np.float32))
    study.images["t1ce"].path.unlink()
    for seed, expected in enumerate(before):
        again = _train(study, seed, mode=mode, roi_size=8)
        assert all(torch.equal(again[k], expected[k]) for k in ("image", "label", "present_mask", "modality_mask"))


def test_legacy_statistics_come_from_all_modalities(tmp_path):
    """The published preprocessing looks at modalities that later count as missing; the clinical one does not."""
    study = make_study(tmp_path)
    options = {"mode": "idt", "augment": "none"}
    before = {p: _train(study, protocol=p, **options)["image"] for p in PROTOCOLS}
    everywhere = np.random.default_rng(0).uniform(50, 200, (12, 14, 10)).astype(np.float32)
    write_volume(study.images["t1"].path, everywhere)
    after = {p: _train(study, protocol=p, **options)["image"] for p in PROTOCOLS}
    assert torch.equal(before["clinical"], after["clinical"])
    assert not torch.equal(before["legacy"], after["legacy"])
    assert not after["legacy"][[1, 2]].any()


def test_clinical_normalisation_is_per_modality_over_its_own_voxels(tmp_path):
    image = _train(make_study(tmp_path), mode="pdt", augment="none", available=None)["image"]
    for channel in image:
        inside = channel[channel != 0]
        assert abs(float(inside.mean())) < 1e-5
        assert abs(float(inside.std(unbiased=False)) - 1) < 1e-5


def test_missing_rates_and_subsets_make_incomplete_data(tmp_path):
    study = make_study(tmp_path)
    sample = _train(study, available=None, mode="idt", missing={"subsets": {"case.01": "t1"}}, augment="none")
    assert sample["present_mask"].tolist() == [False, False, True, False]
    first = _train(study, 0, available=None, mode="idt_drop", missing={"rates": 0.5, "seed": 3})
    second = _train(study, 1, available=None, mode="idt_drop", missing={"rates": 0.5, "seed": 3})
    assert torch.equal(first["present_mask"], second["present_mask"])
    with pytest.raises(ValueError, match="mode 'pdt' uses all modalities"):
        train_transforms(MODALITIES, mode="pdt", missing={"rates": 0.5})


def test_foreground_crop_lets_random_crops_see_tissue(tmp_path):
    study = make_study(tmp_path)
    for source in study.images.values():
        data = np.zeros((40, 14, 10), np.float32)
        data[30:38] = 5 + np.random.default_rng(0).random((8, 14, 10))
        write_volume(source.path, data)
    write_volume(study.label, np.zeros((40, 14, 10), np.uint8))
    for seed in range(5):
        image = _train(study, seed, roi_size=(8, 8, 8), augment="none")["image"]
        assert (image != 0).all()
    whole = _train(study, roi_size=None, augment="none")["image"]
    assert whole.shape == (4, 40, 14, 10)


def test_small_volumes_are_padded_to_the_crop(tmp_path):
    assert _train(make_study(tmp_path), roi_size=(16, 16, 16))["image"].shape == (4, 16, 16, 16)


@pytest.mark.parametrize("roi_size", [None, (8, 8)])
def test_slices_for_two_dimensional_networks(tmp_path, roi_size):
    names = get_edition("myops2020").modalities
    study = make_study(tmp_path, names, shape=(12, 14, 3), edition="myops2020")
    transform = train_transforms(names, roi_size=roi_size, spatial_dims=2).set_random_state(0)
    sample = transform({"study": study, "available": None})
    plane = (12, 14) if roi_size is None else roi_size
    assert sample["image"].shape == (3, *plane)
    assert sample["label"].shape == (1, *plane)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_evaluation_keeps_geometry_and_does_not_need_a_label(tmp_path, protocol):
    study = make_study(tmp_path, ("t1",))
    sample = eval_transforms(MODALITIES, protocol=protocol, orientation="RAS")({"study": study, "available": None})
    assert isinstance(sample["image"], MetaTensor)
    assert sample["image"].meta["case_id"] == "case.01"
    assert sample["label"].shape[1:] == sample["image"].shape[1:]
    assert sample["modality_mask"].tolist() == [False, False, True, False]
    study.label.write_bytes(b"broken")
    assert "label" not in inference_transforms(MODALITIES, protocol=protocol)({"study": study})


def test_spacing_and_orientation_are_applied(tmp_path):
    sample = eval_transforms(MODALITIES, orientation="RAS", spacing=(2, 2, 2))({"study": make_study(tmp_path)})
    spacing = np.linalg.norm(np.asarray(sample["image"].affine)[:3, :3], axis=0)
    np.testing.assert_allclose(spacing, 2, rtol=1e-6)
    assert sample["label"].dtype == torch.uint8
    assert set(sample["label"].unique().tolist()) <= {0, 1, 2, 3}


@pytest.mark.parametrize("option", [{"mode": "random"}, {"protocol": "mine"}, {"augment": "heavy"}])
def test_unknown_options_list_the_allowed_ones(option):
    with pytest.raises(ValueError, match=r"clinical|pdt|light"):
        train_transforms(MODALITIES, **option)


def test_pipelines_can_be_sent_to_workers():
    pickle.loads(pickle.dumps(train_transforms(MODALITIES, roi_size=8)))
