"""What commands print, as real processes: nothing of a library's internals, and nothing twice."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
_PREDICT = ("predict", "cohort", "--bundle", "brats_unet_dropout", "--output", "out")
_EVALUATE = ("evaluate", "cohort", "--bundle", "brats_unet_dropout", "--output", "out")


@pytest.fixture
def place(small_bundle: Callable[[Path], Path], phantom_cohort: Path, tmp_path: Path) -> Path:
    """A bundle; and a cohort of a sound study, one with another background and T2 voxels, and one that is damaged."""
    small_bundle(tmp_path)
    for number in (1, 2, 3):
        shutil.copytree(phantom_cohort / _case(number), tmp_path / "cohort" / _case(number))
    flair, t2 = (_path(tmp_path, 2, name) for name in ("flair", "t2"))
    image = nib.load(flair)
    data = np.asarray(image.dataobj, np.float32)
    nib.save(nib.Nifti1Image(np.where(data == 0, -1000, data).astype(np.float32), image.affine), flair)
    image = nib.load(t2)
    affine = image.affine @ np.diag([1.0, 1.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :, ::2], affine), t2)
    bad = _path(tmp_path, 3, "t1")
    bad.write_bytes(bad.read_bytes()[:500])
    return tmp_path


def _case(number: int) -> str:
    return f"BraTS20_Training_{number:03d}"


def _path(place: Path, number: int, name: str) -> Path:
    return place / "cohort" / _case(number) / f"{_case(number)}_{name}.nii.gz"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("info", "cohort"), 0),
        ((*_PREDICT, "--resample"), 1),
        ((*_EVALUATE, "--resample", "--subsets", "flair,t2"), 1),
        (("predict", "empty", *_PREDICT[2:]), 1),
        (("evaluate", "empty", *_EVALUATE[2:]), 1),
    ],
    ids=["info", "predict", "evaluate", "predict nothing", "evaluate nothing"],
)
def test_nothing_of_a_librarys_internals_and_nothing_twice(
    command: tuple[str, ...], code: int, place: Path, run_command: Run
) -> None:
    (place / "empty").mkdir()
    done = run_command("python", "-m", "medmap_monai.cli.main", *command, cwd=place, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == code, told
    for internal in ("Traceback", "Warning", "site-packages", ".py:", "deprecated", "Setting affine"):
        assert internal not in told
    lines = Counter(line.strip() for line in re.split(r"[\r\n]+", told) if line.strip())
    assert [line for line, count in lines.items() if count > 1] == []
    parts = ("its background is -1000", "resampled t2 to the grid of flair", "Training_003_t1.nii.gz: cannot be read")
    said = parts if "cohort" in command and "info" not in command else ()
    for part in (*said, *(("runs code",) if "info" not in command else ())):
        assert told.count(part) == 1, told
    if "empty" in command:
        assert told.count("found no .nii") == 1
