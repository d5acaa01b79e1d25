"""Background other than zero, heads with their skull, files that show nothing, images that do not lie on each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medmap_monai.data.studies import scan_studies
from medmap_monai.data.study import ImageSource, Study, StudyError
from medmap_monai.transforms.background import foreground, is_brain_alone, why_not_stripped
from medmap_monai.transforms.load_study import LoadStudy
from medmap_monai.transforms.pipelines import eval_transforms, inference_transforms
from medmap_monai.transforms.restore import RestoreToOriginald, SaveLabelMap
from medmap_monai.transforms.shown import SHOWN, where_shown
from tests.transforms.make_study import MODALITIES, make_study, voxels, write_volume

REAL = Path(__file__).resolve().parents[2] / "../shared/real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real studies of ../shared/real are not here")


def _z_scored(data: np.ndarray) -> np.ndarray:
    return (data - data.mean()) / data.std()


def _to_one(data: np.ndarray) -> np.ndarray:
    return 2 * (data - data.min()) / (data.max() - data.min()) - 1


def _minus_thousand(data: np.ndarray) -> np.ndarray:
    return np.where(data == 0, -1000, data)


def _overshoot(data: np.ndarray) -> np.ndarray:
    """Zero in the corners, slightly negative values around the brain, as cubic resampling leaves them."""
    return np.where((data == 0) & (np.roll(data, 1, 0) != 0), -3, data)


@pytest.mark.parametrize("change", [_z_scored, _to_one, _minus_thousand])
def test_another_background_gives_the_same_normalised_image(
    change: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    study = make_study(tmp_path)
    plain = inference_transforms(MODALITIES)({"study": study, "available": None})["image"]
    path = study.images["t1ce"].path
    write_volume(path, change(voxels(path)).astype(np.float32))
    item = inference_transforms(MODALITIES)({"study": study, "available": None})
    assert torch.equal(item["image"] != 0, plain != 0)
    np.testing.assert_allclose(np.asarray(item["image"]), np.asarray(plain), atol=2e-4)
    (note,) = item["image"].meta["notes"]
    assert note.startswith("t1ce: its background is")


def test_a_zero_that_slope_and_intercept_have_moved(tmp_path: Path) -> None:
    study = make_study(tmp_path, ("flair",), label=False)
    path = study.images["flair"].path
    data = voxels(path)
    image = nib.Nifti1Image(np.rint(data * 10).astype(np.int16), nib.load(path).affine)
    image.header.set_slope_inter(0.1, -0.00065)
    nib.save(image, path)
    stored = np.asarray(nib.load(path).dataobj)
    assert stored.flat[0] != 0
    item = LoadStudy(("flair",))(study)
    np.testing.assert_array_equal(np.asarray(item["image"][0]) != 0, data != 0)


def test_a_background_of_zero_is_left_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path, ("flair",), label=False)
    path = study.images["flair"].path
    changed = _overshoot(voxels(path)).astype(np.float32)
    write_volume(path, changed)
    item = LoadStudy(("flair",))(study)
    np.testing.assert_array_equal(np.asarray(item["image"][0]), changed)
    assert item["image"].meta["notes"] == []


@pytest.mark.parametrize("value", [0, 7])
def test_a_file_that_shows_nothing_counts_as_absent(value: int, tmp_path: Path) -> None:
    study = make_study(tmp_path)
    write_volume(study.images["flair"].path, np.full((12, 14, 10), value, np.int16))
    item = LoadStudy(MODALITIES)(study)
    assert item["present_mask"].tolist() == [False, True, True, True]
    assert not item["image"][0].any()
    assert item["image"].meta["notes"] == [f"flair: every voxel is {value}, so it was treated as absent"]
    assert item["image"].meta["reference"] == "t1ce"
    alone = dataclasses.replace(study, images={"flair": study.images["flair"]})
    with pytest.raises(StudyError, match=r"no modality shows anything .flair: every voxel is"):
        LoadStudy(MODALITIES)(alone)


def _head(noise: bool) -> np.ndarray:
    """An ellipsoid of 4 l on a grid of 4 mm; around it zeros, or the noise of a scanner."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (50, 60, 55)), indexing="ij")
    rng = np.random.default_rng(0)
    air = rng.integers(1, 20, (50, 60, 55)) if noise else np.zeros((50, 60, 55), np.int64)
    return np.where(sum(a**2 for a in axes) < 0.75, rng.integers(100, 900, air.shape), air).astype(np.int16)


@pytest.mark.parametrize("noise", [False, True])
def test_a_head_with_its_skull_is_refused(noise: bool, tmp_path: Path) -> None:
    path = write_volume(tmp_path / "flair.nii.gz", _head(noise), np.diag([4.0, 4, 4, 1]))
    study = Study("a", {"flair": ImageSource(path)})
    with pytest.raises(StudyError, match=r"case a: .*flair.nii.gz: shows \d+ ml.*medmap prepare"):
        LoadStudy(("flair",))(study)
    heart = dataclasses.replace(study, images={"lge": ImageSource(path)}, edition="myops2020")
    assert LoadStudy(("lge",))(heart)["present_mask"].tolist() == [True]


def _move(data: np.ndarray, voxels_: int) -> np.ndarray:
    return np.roll(data, voxels_, axis=0)


@pytest.mark.parametrize(("shift", "fine"), [(0, True), (10, False), (20, False)])
def test_resampling_wants_brains_that_lie_on_each_other(shift: int, fine: bool, tmp_path: Path) -> None:
    """Two sequences of one brain; the second has thicker slices, and is moved against the first by ``shift`` mm."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (70, 80, 64)), indexing="ij")
    brain = sum(a**2 for a in axes) < 0.6
    inner = sum((a - o) ** 2 for a, o in zip(axes, (0.2, -0.1, 0.1), strict=True)) < 0.12
    rng = np.random.default_rng(0)
    first = brain * (400 + 300 * inner + rng.integers(0, 40, brain.shape))
    second = _move(brain * (700 - 400 * inner + rng.integers(0, 40, brain.shape)), shift // 2)[:, :, ::2]
    flair = write_volume(tmp_path / "flair.nii.gz", first.astype(np.int16), np.diag([2.0, 2, 2, 1]))
    t2 = write_volume(tmp_path / "t2.nii.gz", second.astype(np.int16), np.diag([2.0, 2, 4, 1]))
    study = Study("a", {"flair": ImageSource(flair), "t2": ImageSource(t2)})
    with pytest.raises(StudyError, match=r"t2 has shape .* medmap prepare registers"):
        LoadStudy(MODALITIES)(study)
    if fine:
        notes = LoadStudy(MODALITIES, resample=True)(study)["image"].meta["notes"]
        assert notes == ["resampled t2 to the grid of flair"]
    else:
        with pytest.raises(StudyError, match=r"t2 does not lie on flair: .*medmap prepare registers"):
            LoadStudy(MODALITIES, resample=True)(study)


@pytest.mark.parametrize("options", [{}, {"orientation": "RAS"}, {"spacing": (2.0, 2.0, 2.0)}, {"protocol": "legacy"}])
@pytest.mark.parametrize("used", [(True, True), (True, False), (False, True)])
def test_the_map_is_background_where_what_was_used_shows_nothing(
    options: dict, used: tuple[bool, bool], tmp_path: Path
) -> None:
    study = make_study(tmp_path, ("flair", "t2"), label=False)
    stored = {name: voxels(source.path) for name, source in study.images.items()}
    stored["t2"] = np.where(np.arange(12)[:, None, None] < 7, stored["t2"], 0).astype(np.float32)
    write_volume(study.images["t2"].path, stored["t2"])
    item = inference_transforms(("flair", "t2"), **options)({"study": study, "available": None})
    item["pred"] = item["image"][:1] * 0 + 1  # everything is a tumour
    item["modality_mask"] = torch.tensor(used)
    restored = RestoreToOriginald("pred")(item)["pred"]
    shown = np.any([data != 0 for data, use in zip(stored.values(), used, strict=True) if use], axis=0)
    assert not np.asarray(restored[0])[~shown].any()
    if not options:
        np.testing.assert_array_equal(np.asarray(restored[0]), shown)


def test_evaluation_samples_say_what_is_shown_where_the_label_lies(tmp_path: Path) -> None:
    study = make_study(tmp_path, ("flair", "t2"))
    item = eval_transforms(MODALITIES, orientation="RAS", label_grid="own")({"study": study, "available": None})
    assert item[SHOWN].shape == item["label"].shape
    flair = where_shown(item[SHOWN], (True, False, False, False))
    np.testing.assert_array_equal(np.asarray(flair[0]), voxels(study.images["flair"].path) != 0)
    assert not where_shown(item[SHOWN], (False, True, True, False)).any()


def test_a_prediction_is_no_label(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    item = LoadStudy(MODALITIES)(study)
    written = SaveLabelMap(tmp_path / "out")(item["label"])
    with pytest.raises(StudyError, match=r"case.01_seg.nii.gz: is a prediction of this package, not a label"):
        LoadStudy(MODALITIES)(dataclasses.replace(study, label=written))


@needs_real
def test_real_studies_are_accepted_or_refused() -> None:
    for folder in ("TCGA-DU-7294", "TCGA-FG-6692/brats_space"):
        (study,) = scan_studies(REAL / folder).studies
        assert LoadStudy(MODALITIES)(study)["image"].meta["notes"] == []
    (native,) = scan_studies(REAL / "TCGA-FG-6692/native").studies
    for resample in (False, True):
        with pytest.raises(StudyError, match=r"TCGA-FG-6692_native: .*fla.nii.gz: shows \d+ ml.*skull.*medmap prepare"):
            LoadStudy(MODALITIES, resample=resample)(native)


def _ball(shape: tuple[int, int, int], radius: float, middle: float = 0.0) -> np.ndarray:
    """A ball around the middle of the grid, or ``middle`` voxels below it; values as in an image."""
    axes = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    axes[2] += middle
    return np.where((axes**2).sum(axis=0) < radius**2, 100.0, 0.0) + 0.0


@pytest.mark.parametrize(
    ("data", "alone", "stripped"),
    [
        pytest.param(_ball((50, 50, 50), 16), True, True, id="a brain of 1.1 l in air"),
        pytest.param(_ball((50, 50, 50), 16) - 1000, True, None, id="the same with another background"),
        pytest.param(_ball((50, 50, 50), 16, 11), True, True, id="a brain that is cut at the bottom"),
        pytest.param(_ball((60, 60, 60), 24), False, False, id="a head of 3.7 l"),
        pytest.param(_ball((50, 50, 12), 20), False, True, id="a slab of a head"),
        pytest.param(_ball((34, 34, 34), 19), False, True, id="a small head up to the edges"),
        pytest.param(np.zeros((20, 20, 20)), False, True, id="nothing"),
    ],
)
def test_what_is_a_brain_alone(data: np.ndarray, alone: bool, stripped: bool | None) -> None:
    """Voxels of 4 mm. ``stripped``: what may be read as a brain; None where the background has to be found first."""
    affine = np.diag([4.0, 4, 4, 1])
    assert is_brain_alone(data, affine) is alone
    if stripped is not None:
        assert (why_not_stripped(data, affine) is None) is stripped


def test_foreground_is_everything_where_there_is_no_background() -> None:
    noise = np.random.default_rng(0).uniform(0, 9, (9, 9, 9))
    assert foreground(noise).all()
    assert np.array_equal(foreground(_ball((20, 20, 20), 6) - 3), _ball((20, 20, 20), 6) > 0)
