"""``medmap_monai.predict``: one study from paths and from memory, many from a folder, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from typer.testing import CliRunner

import medmap_monai as mm
from medmap_monai.cli.main import app
from medmap_monai.engines.studies_failed import StudiesFailedError

CASE = "BraTS20_Training_001"
SMALL = {"overlays": ["phantom"], "device": "cpu"}


@pytest.fixture(scope="module")
def files(phantom_cohort: Path) -> dict[str, Path]:
    return {name: phantom_cohort / CASE / f"{CASE}_{name}.nii.gz" for name in ("flair", "t1ce")}


@pytest.fixture
def bundle(make_bundle: Callable[..., Path], random_weights: Path) -> Path:
    return make_bundle(weights=random_weights)


def test_a_study_of_paths_equals_the_command_line(bundle: Path, files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "in" / CASE
    folder.mkdir(parents=True)
    for path in files.values():
        (folder / path.name).symlink_to(path)
    options = ["--bundle", str(bundle), "--output", str(tmp_path / "out"), "--overlay", "phantom", "--device", "cpu"]
    assert CliRunner().invoke(app, ["predict", str(tmp_path / "in"), *options]).exit_code == 0
    written = nib.load(tmp_path / "out" / f"{CASE}_seg.nii.gz")

    found = mm.predict(files, bundle, edition="brats2020", **SMALL)
    np.testing.assert_array_equal(found.label_map, np.asarray(written.dataobj))
    np.testing.assert_array_equal(found.affine, written.affine)
    assert set(np.unique(found.label_map)) > {0}
    assert found.labels == {0: "background", 1: "NCR", 2: "ED", 4: "ET"}
    assert (found.modalities_used, found.modalities_absent) == (("flair", "t1ce"), ("t1", "t2"))
    for value, name in list(found.labels.items())[1:]:
        assert found.volumes_ml[name] == pytest.approx((found.label_map == value).sum() / 1000, abs=5e-4)
    assert found.path is None
    assert found.record["edition"] == "brats2020"
    assert not found.expected_dice


def test_without_an_edition_the_result_says_what_its_values_mean(bundle: Path, files: dict[str, Path]) -> None:
    found = mm.predict(files, bundle, edition="generic", **SMALL)
    assert any("label values are the class indices" in text for text in found.warnings)
    assert found.labels == {0: "background", 1: "NCR", 2: "ED", 3: "ET"}


@pytest.mark.parametrize("kind", ["array and affine", "nibabel", "MetaTensor", "channel-first MetaTensor"])
def test_a_study_in_memory_equals_its_files(bundle: Path, files: dict[str, Path], kind: str) -> None:
    images = {name: nib.load(path) for name, path in files.items()}
    if kind == "array and affine":
        given = {name: (np.asarray(image.dataobj), image.affine) for name, image in images.items()}
    elif kind == "nibabel":
        given = images
    else:
        axes = (None, ...) if kind.startswith("channel") else (...,)
        given = {
            n: MetaTensor(torch.tensor(i.get_fdata())[axes], affine=torch.tensor(i.affine)) for n, i in images.items()
        }
    from_files = mm.predict(files, bundle, edition="brats2020", **SMALL)
    from_memory = mm.predict(given, bundle, edition="brats2020", **SMALL)
    np.testing.assert_array_equal(from_memory.label_map, from_files.label_map)
    np.testing.assert_array_equal(from_memory.affine, from_files.affine)


def test_a_folder_gives_one_segmentation_per_case_and_keeps_what_is_done(
    bundle: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        (tmp_path / "in").mkdir(exist_ok=True)
        case = f"BraTS20_Training_{number:03d}"
        (tmp_path / "in" / case).symlink_to(phantom_cohort / case)
    found = mm.predict(tmp_path / "in", bundle, tmp_path / "out", **SMALL)
    assert list(found) == ["BraTS20_Training_001", "BraTS20_Training_002"]
    assert found[CASE].path == tmp_path / "out" / f"{CASE}_seg.nii.gz"
    assert found[CASE].labels[4] == "ET"
    written = found[CASE].path.stat().st_mtime_ns
    again = mm.predict(tmp_path / "in", bundle, tmp_path / "out", **SMALL)
    assert list(again) == list(found)
    assert again[CASE].path.stat().st_mtime_ns == written


def test_mistakes_are_named(bundle: Path, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown modalities \['FLAIR'\].*'flair'"):
        mm.predict({"FLAIR": files["flair"]}, bundle, **SMALL)
    with pytest.raises(ValueError, match="no image is given"):
        mm.predict({}, bundle, **SMALL)
    with pytest.raises(ValueError, match=r"flair: got a ndarray.*affine"):
        mm.predict({"flair": np.zeros((4, 4, 4))}, bundle, **SMALL)
    with pytest.raises(ValueError, match=r"the affine has shape \(3, 3\)"):
        mm.predict({"flair": (np.zeros((4, 4, 4)), np.eye(3))}, bundle, **SMALL)
    with pytest.raises(ValueError, match="given for more than one modality: flair and t1ce"):
        mm.predict({"flair": files["flair"], "t1ce": files["flair"]}, bundle, **SMALL)
    other = np.ones((32, 32, 31), np.float32)
    affine = nib.load(files["flair"]).affine
    without = mm.predict({"flair": files["flair"], "t1ce": (other, affine)}, bundle, **SMALL)
    assert without.modalities_used == ("flair",)  # one that lies elsewhere is left out, and told
    assert any("t1ce" in text for text in without.warnings), without.warnings
    with pytest.raises(FileNotFoundError, match="is not a bundle"):
        mm.predict(files, tmp_path)
    with pytest.raises(ValueError, match="say where with output="):
        mm.predict(tmp_path, bundle)
    with pytest.raises(ValueError, match="does not fit the network"):
        mm.predict(files, bundle, device="cpu")  # full-size network, small weights


def test_a_bad_study_of_a_folder_is_named_and_the_others_are_done(
    bundle: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    for number, content in ((1, None), (2, b"broken")):
        case = f"BraTS20_Training_{number:03d}"
        folder = tmp_path / "in" / case
        folder.mkdir(parents=True)
        source = phantom_cohort / case / f"{case}_t1.nii.gz"
        (folder / source.name).write_bytes(content or source.read_bytes())
    with pytest.raises(StudiesFailedError, match="BraTS20_Training_002") as failed:
        mm.predict(tmp_path / "in", bundle, tmp_path / "out", **SMALL)
    assert list(failed.value.failures) == ["BraTS20_Training_002"]
    assert (tmp_path / "out" / f"{CASE}_seg.nii.gz").is_file()
