"""Broken studies are found before anything is trained on them."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmap_monai.data.manifest import read_manifest
from medmap_monai.data.splits import SplitRow, read_split, write_split
from medmap_monai.recipes.prepare_cohort import main, prepare
from medmap_monai.recipes.published_split import join_published, published_file

HEADER = "data_name,mask_id,mask,pos_mask_ids\r\n"


@pytest.fixture
def cohort(phantom_cohort: Path, tmp_path: Path) -> Path:
    """Five studies: one without T1, one truncated, one with an unknown label value, two sound ones."""
    target = tmp_path / "cohort"
    cases = sorted(phantom_cohort.glob("BraTS20_*"))[:5]
    for case in cases:
        shutil.copytree(case, target / case.name)
    names = [case.name for case in cases]
    (target / names[0] / f"{names[0]}_t1.nii.gz").unlink()
    torn = target / names[1] / f"{names[1]}_t2.nii.gz"
    torn.write_bytes(torn.read_bytes()[:200])
    label = target / names[2] / f"{names[2]}_seg.nii.gz"
    image = nib.load(label)
    values = np.asarray(image.dataobj).astype(np.uint8)
    values[0, 0, 0] = 7
    nib.save(nib.Nifti1Image(values, image.affine), label)
    return target


def test_broken_studies_are_named_and_the_others_listed(cohort: Path, tmp_path: Path) -> None:
    good, errors = prepare(cohort, tmp_path / "out", workers=2)
    cases = sorted(path.name for path in cohort.iterdir())
    assert [study.case_id for study in good] == cases[3:]
    assert [error.case_id for error in errors] == cases[:3]
    with (tmp_path / "out" / "broken.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"] for row in rows] == cases[:3]
    assert "no t1;" in rows[0]["reason"]
    assert rows[1]["file"].endswith("_t2.nii.gz")
    assert "7" in rows[2]["reason"]
    assert [study.case_id for study in read_manifest(tmp_path / "out" / "manifest.csv")] == cases[3:]


def test_exit_codes(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", str(cohort), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 1
    printed = capsys.readouterr()
    assert "2 sound studies, 3 broken" in printed.out
    assert "--leave-out-broken" in printed.err
    monkeypatch.setattr(sys, "argv", [*arguments, "--leave-out-broken"])
    assert main() == 0
    monkeypatch.setattr(sys, "argv", ["prepare", str(tmp_path / "nowhere"), "--output", str(tmp_path)])
    assert main() == 1
    assert "nowhere" in capsys.readouterr().err


def test_published_split_becomes_three_folds(phantom_cohort: Path, tmp_path: Path) -> None:
    cases = sorted(path.name for path in phantom_cohort.glob("BraTS20_*"))
    training = tmp_path / "Brats2020_imb_split_mr2468.csv"
    training.write_text(
        f'{HEADER}HG_{cases[0]},1,"[False, True, False, False]",[1]\r\n'
        f'LG_{cases[1]},9,"[True, True, False, False]","[1, 3, 9]"\r\n',
        newline="",
    )
    (tmp_path / "test.txt").write_text(f"HG_{cases[2]}\n")
    assert published_file(tmp_path, "brats2020", "2468") == training
    with pytest.raises(FileNotFoundError, match="the folder holds"):
        published_file(tmp_path, "brats2020", "1379")
    rows = join_published(phantom_cohort, training, tmp_path / "test.txt")
    write_split(tmp_path / "split.csv", rows)
    assert read_split(tmp_path / "split.csv") == rows
    assert rows[0] == SplitRow(cases[0], "train", ("t1ce",))
    assert rows[1] == SplitRow(cases[1], "train", ("flair", "t1ce"))
    assert [row.fold for row in rows] == ["train"] * 2 + ["val"] * 5 + ["test"]
    (tmp_path / "test.txt").write_text(f"HG_{cases[0]}\n")
    with pytest.raises(ValueError, match=r"is in .* and in"):
        join_published(phantom_cohort, training, tmp_path / "test.txt")
    (tmp_path / "test.txt").write_text("HG_BraTS20_Training_999\n")
    with pytest.raises(ValueError, match=r"which .* does not hold"):
        join_published(phantom_cohort, training, tmp_path / "test.txt")
