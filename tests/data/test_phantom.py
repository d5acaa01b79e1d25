"""Phantom cohorts on disk: layout, label values, geometry, determinism, safety."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmap_monai.data import phantom as phantom_module
from medmap_monai.data.detection import detect_edition
from medmap_monai.data.editions import get_edition
from medmap_monai.data.phantom import ensure_cohort, write_cohort
from medmap_monai.data.phantom_brain import brain_phantom
from medmap_monai.data.phantom_recipe import PhantomRecipe, writable_editions
from medmap_monai.data.studies import find_studies

SHAPE = (18, 17, 16)
HEART = (26, 24, 5)


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_writable_editions() -> None:
    assert {"brats2018", "brats2020", "brats2021", "brats2023", "myops2020"} <= set(writable_editions())


@pytest.mark.parametrize("name", writable_editions())
def test_layout_is_found_again(name: str, tmp_path: Path) -> None:
    edition = get_edition(name)
    shape = HEART if edition.slices else SHAPE
    folder = write_cohort(tmp_path / "cohort", name, 3, shape, seed=1, absent={"2": [edition.modalities[0]]})
    assert detect_edition(folder).name == name
    studies = find_studies(folder)
    assert len(studies) == 3
    for number, study in enumerate(studies):
        expected = list(edition.modalities)[1:] if number == 1 else list(edition.modalities)
        assert list(study.images) == expected
        assert study.label is not None
        label = nib.load(study.label)
        assert set(np.unique(np.asarray(label.dataobj))) == set(edition.labels)
        for source in study.images.values():
            image = nib.load(source.path)
            assert image.shape == shape
            np.testing.assert_array_equal(image.affine, label.affine)


def test_voxels_on_disk_are_those_of_the_generator(tmp_path: Path) -> None:
    (study,) = find_studies(write_cohort(tmp_path / "c", "brats2023", 1, SHAPE, seed=9, first_case=4))
    assert study.case_id == "BraTS-GLI-00004-000"
    case = brain_phantom(SHAPE, (9, 4))
    flair = np.asarray(nib.load(study.images["flair"].path).dataobj)
    np.testing.assert_allclose(flair, case.images["flair"], atol=1)
    np.testing.assert_array_equal(flair > 0, case.images["flair"] > 0)
    assert study.label is not None
    np.testing.assert_array_equal(np.asarray(nib.load(study.label).dataobj), case.label)


def test_affines(tmp_path: Path) -> None:
    (straight,) = find_studies(write_cohort(tmp_path / "s", "brats2020", 1, SHAPE))
    image = nib.load(straight.images["t1"].path)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    np.testing.assert_allclose(image.affine[:3, 3], [0, SHAPE[1] - 1, 0])
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    (oblique,) = find_studies(write_cohort(tmp_path / "o", "brats2020", 1, SHAPE, affine="oblique"))
    tilted = nib.load(oblique.images["t1"].path)
    assert nib.affines.obliquity(tilted.affine).min() > np.radians(10)
    np.testing.assert_allclose(nib.affines.voxel_sizes(tilted.affine), 1, atol=1e-6)
    np.testing.assert_allclose(tilted.get_qform(), tilted.affine, atol=1e-4)
    (heart,) = find_studies(write_cohort(tmp_path / "h", "myops2020", 1, HEART))
    zooms = nib.load(heart.images["lge"].path).header.get_zooms()
    assert zooms[2] > 4 * zooms[0]


def test_same_seed_same_files_for_any_number_of_workers(tmp_path: Path) -> None:
    first = write_cohort(tmp_path / "a", "brats2020", 3, SHAPE, seed=2)
    second = write_cohort(tmp_path / "b", "brats2020", 3, SHAPE, seed=2, workers=3)
    assert _digests(first) == _digests(second)


def test_ranges_of_cases_continue_each_other(tmp_path: Path) -> None:
    whole = _digests(write_cohort(tmp_path / "whole", "brats2020", 3, SHAPE, seed=2))
    tail = _digests(write_cohort(tmp_path / "tail", "brats2020", 1, SHAPE, seed=2, first_case=2))
    images = {name: digest for name, digest in tail.items() if name.endswith(".nii.gz")}
    assert images
    assert all(whole[name] == digest for name, digest in images.items())
    assert len({digest for name, digest in whole.items() if name.endswith("_t1.nii.gz")}) == 3


def test_folder_says_that_it_is_synthetic(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "c", "brats2020", 1, SHAPE, seed=6)
    assert "SYNTHETIC PHANTOM" in (folder / "README.txt").read_text()
    description = json.loads((folder / "dataset.json").read_text())
    assert description["synthetic"] is True
    assert (description["seed"], description["generator_version"]) == (6, "4")
    (study,) = find_studies(folder)
    assert b"SYNTHETIC PHANTOM" in bytes(nib.load(study.images["t1"].path).header["descrip"])


def test_missing_rates_and_absent_files(tmp_path: Path) -> None:
    folder = write_cohort(
        tmp_path / "c",
        "brats2020",
        10,
        (16, 16, 16),
        absent={"last": ["t1", "t1ce"], "BraTS20_Training_001": ["t2"]},
        missing_rates={"t2": 0.7},
    )
    studies = find_studies(folder)
    assert list(studies[-1].images) == ["flair", "t2"]
    assert list(studies[0].images) == ["flair", "t1ce", "t1"]
    assert all({"flair", "t1ce", "t1"} <= set(study.images) for study in studies[:-1])
    assert 0 < sum("t2" not in study.images for study in studies) < 10


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"edition": "bids"}, "bids has no phantom; allowed are brats2018"),
        ({"edition": "unknown"}, "allowed are"),
        ({"edition": get_edition("brats2020").with_labels({0: 0, 1: 3})}, r"no label value.*\[1, 2\]"),
        ({"cases": 0}, "cases must be at least 1"),
        ({"seed": -1}, "seed at least 0"),
        ({"shape": (8, 8, 8)}, "16 voxels"),
        ({"affine": "tilted"}, "straight, oblique"),
        ({"absent": {"3": ["t1"]}}, "case '3' is unknown; allowed are 1 to 2"),
        ({"absent": {"1": ["dwi"]}}, r"\['dwi'\]"),
        ({"absent": {"1": ["t1", "t2", "flair", "t1ce"]}}, "at least one must exist"),
        ({"missing_rates": {"dwi": 0.1}}, r"\['dwi'\]"),
        ({"missing_rates": {"t1": 1.4}}, "from 0 to 1"),
        ({"p_no_et": 2.0}, "from 0 to 1"),
    ],
)
def test_bad_arguments_leave_nothing_behind(kwargs: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_cohort(tmp_path / "c", **{"cases": 2, "shape": SHAPE, **kwargs})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_used_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="not empty"):
        write_cohort(tmp_path, cases=1, shape=SHAPE)
    with pytest.raises(ValueError, match="not a phantom cohort"):
        ensure_cohort(tmp_path, cases=1, shape=SHAPE)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_ensure_writes_once_and_then_checks(tmp_path: Path) -> None:
    arguments = {"edition": "brats2020", "cases": 2, "shape": SHAPE, "seed": 3}
    done: list[tuple[int, int]] = []
    folder = ensure_cohort(tmp_path / "c", **arguments, progress=lambda *step: done.append(step))  # type: ignore[arg-type]
    assert done == [(1, 2), (2, 2)]
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert ensure_cohort(str(folder), **arguments) == folder  # type: ignore[arg-type]
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for change, message in [
        ({"seed": 4}, "seed: 3 there, 4 asked for"),
        ({"cases": 3}, "cases: 2 there, 3 asked for"),
        ({"shape": (16, 16, 16)}, "shape"),
        ({"absent": {"1": ["t1"]}}, "BraTS20_Training_001"),
    ]:
        with pytest.raises(ValueError, match=message):
            ensure_cohort(folder, **{**arguments, **change})  # type: ignore[arg-type]
    next(folder.rglob("*_t2.nii.gz")).unlink()
    with pytest.raises(ValueError, match=r"incomplete.*_t2\.nii\.gz is gone"):
        ensure_cohort(folder, **arguments)  # type: ignore[arg-type]


def test_two_at_once_end_with_one_cohort(tmp_path: Path) -> None:
    barrier = threading.Barrier(2)
    results: list[Path] = []

    def work() -> None:
        barrier.wait()
        results.append(ensure_cohort(tmp_path / "c", "brats2020", 2, SHAPE))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [tmp_path / "c"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert len(find_studies(tmp_path / "c")) == 2


def test_loser_of_the_race_takes_the_winners_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process finishes while this one is writing."""
    original = phantom_module.write_case

    def late(*arguments: object) -> None:
        if not (tmp_path / "c").exists():
            monkeypatch.setattr(phantom_module, "write_case", original)
            write_cohort(tmp_path / "c", "brats2020", 1, SHAPE)
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(phantom_module, "write_case", late)
    assert ensure_cohort(tmp_path / "c", "brats2020", 1, SHAPE) == tmp_path / "c"
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom_module, "write_case", fail)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(tmp_path / "c", cases=2, shape=SHAPE)
    assert list(tmp_path.iterdir()) == []


def test_recipe_of_a_users_edition(tmp_path: Path) -> None:
    mine = get_edition("brats2020").with_labels({0: 0, 10: 1, 20: 2, 30: 3})
    (study,) = find_studies(write_cohort(tmp_path / "c", mine, 1, SHAPE), mine)
    assert study.label is not None
    assert set(np.unique(np.asarray(nib.load(study.label).dataobj))) == {0, 10, 20, 30}
    assert PhantomRecipe(mine, 1, SHAPE).description["labels"] == {"0": 0, "10": 1, "20": 2, "30": 3}
