"""What commands print, as real processes: nothing of a library's internals, and nothing twice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmap_monai.utils.find_bundle import DEFAULT_BUNDLE, known_bundles
from tests.conftest import REPOSITORY
from tests.small_bundle import write_small_bundle

_PREDICT = ("predict", "cohort", "--bundle", "brats_unet_dropout", "--output", "out")
_EVALUATE = ("evaluate", "cohort", "--bundle", "brats_unet_dropout", "--output", "out")
_COMMANDS: dict[str, tuple[str, ...]] = {
    "info": ("info", "cohort"),
    "predict": (*_PREDICT, "--resample"),
    "evaluate": (*_EVALUATE, "--resample", "--subsets", "flair,t2"),
    "predict nothing": ("predict", "empty", *_PREDICT[2:]),
    "evaluate nothing": ("evaluate", "empty", *_EVALUATE[2:]),
    "predict with the starter": ("predict", "sound", "--output", "starter"),
}
_FAIL = {"predict", "evaluate", "predict nothing", "evaluate nothing"}
#: the console command, once per line of arguments, each in a process of its own that has the modules already
_PROGRAM = """
import json, os, sys
from medmap_monai.cli.main import main
import medmap_monai.engines.run_bundle, medmap_monai.engines.subset_evaluator
import monai.bundle, monai.data, monai.engines, monai.handlers, monai.inferers, monai.losses, monai.metrics
for number, command in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    log = os.open(f"told_{number}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["medmap", *command]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        import traceback
        traceback.print_exc()
        code = 99
    print(f"exit code {code}", flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def place(phantom_cohort: Path, random_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every command has run.

    The cohort holds a sound study, one with another background and T2 voxels, and one that is damaged.
    """
    place = tmp_path_factory.mktemp("commands")
    write_small_bundle(place, random_weights)
    (place / "empty").mkdir()
    shutil.copytree(phantom_cohort / _case(1), place / "sound" / _case(1))
    for number in (1, 2, 3):
        shutil.copytree(phantom_cohort / _case(number), place / "cohort" / _case(number))
    flair, t2 = (_path(place, 2, name) for name in ("flair", "t2"))
    image = nib.load(flair)
    data = np.asarray(image.dataobj, np.float32)
    nib.save(nib.Nifti1Image(np.where(data == 0, -1000, data).astype(np.float32), image.affine), flair)
    image = nib.load(t2)
    affine = image.affine @ np.diag([1.0, 1.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :, ::2], affine), t2)
    bad = _path(place, 3, "t1")
    bad.write_bytes(bad.read_bytes()[:500])
    program = [sys.executable, "-c", _PROGRAM, json.dumps(list(_COMMANDS.values()))]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HOME": str(place)}
    done = subprocess.run(program, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")  # importing says nothing either
    return place


@pytest.fixture(scope="module")
def told(place: Path) -> dict[str, tuple[str, str]]:
    """What every command says, and the line of its exit code."""
    texts = [(place / f"told_{number}").read_text() for number in range(len(_COMMANDS))]
    return {name: (text, text.splitlines()[-1]) for name, text in zip(_COMMANDS, texts, strict=True)}


def _case(number: int) -> str:
    return f"BraTS20_Training_{number:03d}"


def _path(place: Path, number: int, name: str) -> Path:
    return place / "cohort" / _case(number) / f"{_case(number)}_{name}.nii.gz"


@pytest.mark.parametrize("name", _COMMANDS)
def test_nothing_of_a_librarys_internals_and_nothing_twice(name: str, told: dict[str, tuple[str, str]]) -> None:
    text, code = told[name]
    if "starter" in name and not (known_bundles()[DEFAULT_BUNDLE] / "models" / "model.pt").is_file():
        pytest.skip(f"{DEFAULT_BUNDLE} has no weights here")
    assert code == f"exit code {int(name in _FAIL)}", text
    for internal in ("Traceback", "Warning", "site-packages", ".py:", "deprecated", "Setting affine"):
        assert internal not in text
    lines = Counter(line.strip() for line in re.split(r"[\r\n]+", text) if line.strip())
    assert [line for line, count in lines.items() if count > 1] == []


@pytest.mark.parametrize("name", ["predict", "evaluate"])
def test_what_was_noticed_and_what_failed_is_told_once(name: str, told: dict[str, tuple[str, str]]) -> None:
    parts = ("its background is -1000", "resampled t2 to the grid of flair", "Training_003_t1.nii.gz: cannot be read")
    for part in (*parts, "runs code"):
        assert told[name][0].count(part) == 1, told[name][0]
    assert told[f"{name} nothing"][0].count("found no .nii") == 1


def test_the_summary_of_an_evaluation_holds_what_was_noticed(place: Path) -> None:
    notes = json.loads((place / "out" / "summary.json").read_text())["notes"]
    assert list(notes) == [_case(2)]
    assert "resampled t2 to the grid of flair" in notes[_case(2)]


def test_a_bundle_that_came_with_the_package_is_not_warned_of(told: dict[str, tuple[str, str]]) -> None:
    assert "runs code" not in told["predict with the starter"][0]
