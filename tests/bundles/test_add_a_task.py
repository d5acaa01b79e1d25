"""The commands of docs/how-to/add-a-task.md, run from the edition files that the page shows to a report."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.data.edition_file import edition_from, read_edition
from medmap_monai.data.manifest import read_manifest
from medmap_monai.data.studies import find_studies

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-task.md"
TEXT = PAGE.read_text(encoding="utf-8")
EDITIONS = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)]
COMMANDS = [
    line for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
LUNG, PROSTATE = EDITIONS


def write_study(folder: Path, names: dict[str, str], label: str, values: list[int], shape: tuple[int, ...]) -> None:
    """A study of noise with a bright box per label value."""
    rng = np.random.default_rng(len(folder.name) + sum(map(ord, folder.name)))
    folder.mkdir(parents=True)
    truth = np.zeros(shape, dtype=np.int16)
    for number, value in enumerate(values):
        truth[4 + 6 * number : 12 + 6 * number, 6:16] = value
    for file in names.values():
        image = rng.normal(100, 10, shape) + 60 * (truth > 0)
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / f"{file}.nii.gz")
    nib.save(nib.Nifti1Image(truth, np.eye(4)), folder / f"{label}.nii.gz")


def write_lungs(folder: Path) -> None:
    for number in range(5):
        case = f"P{number:02d}"
        write_study(folder / case, {m: f"{case}_{m}" for m in ("ct", "pet")}, f"{case}_seg", [1], (24, 24, 16))


def run(command: str, run_command: Callable[..., Any], cwd: Path) -> str:
    words = shlex.split(command)
    if words[0] == "medmap":
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        return result.output
    return str(run_command(*words, cwd=cwd).stdout)


def test_editions_are_short() -> None:
    for content in EDITIONS:
        assert len(json.dumps(content, indent=4).splitlines()) <= 30
    for block in re.findall(r"^```json\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        assert len(block.splitlines()) <= 25


def test_every_command_of_the_page(
    tmp_path: Path, run_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lung.json").write_text(json.dumps(LUNG), encoding="utf-8")
    write_lungs(tmp_path / "studies")
    write_study(tmp_path / "new_studies" / "N1", {"pet": "N1_pet"}, "N1_seg", [1], (24, 24, 16))
    (tmp_path / "new_studies" / "N1" / "N1_seg.nii.gz").unlink()
    files = {"t2": "T2", "adc": "ADC", "dwi": "DWI", "t1": "T1", "dce": "DCE"}
    for number in range(5):
        write_study(tmp_path / "prostates" / f"p{number}", files, "label", [10, 21], (32, 32, 3))
    (tmp_path / "prostates" / "edition.json").write_text(json.dumps(PROSTATE), encoding="utf-8")

    told = {command: run(command, run_command, tmp_path) for command in COMMANDS}

    assert "P04" in told["medmap info studies --edition lung.json"]
    assert len((tmp_path / "lung_unet.json").read_text(encoding="utf-8").splitlines()) <= 30
    segmentation = nib.load(tmp_path / "segmentations" / "N1_seg.nii.gz")
    assert segmentation.shape == (24, 24, 16)
    assert set(np.unique(np.asarray(segmentation.dataobj)).tolist()) <= {0, 1}
    table = pd.read_csv(tmp_path / "evaluation" / "metrics.csv")
    assert set(table["subset"]) == {"ct", "pet", "ct+pet"}
    assert set(table["region"]) == {"tumour"}
    assert (tmp_path / "report.html").stat().st_size > 10_000
    table = pd.read_csv(tmp_path / "evaluation_of_prostates" / "metrics.csv")
    assert set(table["subset"]) == {"t2", "adc+dwi", "t2+adc+dwi+t1+dce"}
    assert set(table["region"]) == {"prostate", "lesion"}
    assert "prostate" in told["medmap info prostates"].lower()


def test_predictions_have_the_values_of_the_edition(tmp_path: Path) -> None:
    import torch
    from monai.data import MetaTensor

    from medmap_monai.transforms.load_study import LoadStudyd
    from medmap_monai.transforms.restore import SaveLabelMap

    folder = tmp_path / "cohort"
    write_study(folder / "p1", {"t2": "T2"}, "label", [10, 21], (32, 32, 3))
    (folder / "edition.json").write_text(json.dumps(PROSTATE), encoding="utf-8")
    (study,) = find_studies(folder)
    loaded = LoadStudyd(tuple(PROSTATE["modalities"]), label="required")({"study": study})
    label = loaded["label"]
    assert torch.unique(torch.as_tensor(label)).tolist() == [0, 1, 2]
    saved = SaveLabelMap(tmp_path / "out")(MetaTensor(label, meta=loaded["image"].meta))
    assert np.unique(np.asarray(nib.load(saved).dataobj)).tolist() == [0, 10, 20]  # the first value of the class


@pytest.mark.parametrize("written_out", [True, False])
def test_manifest_names_its_edition(tmp_path: Path, written_out: bool) -> None:
    write_lungs(tmp_path / "studies")
    (tmp_path / "lung.json").write_text(json.dumps(LUNG), encoding="utf-8")
    case = {"case_id": "P01", "ct": "studies/P01/P01_ct.nii.gz", "label": "studies/P01/P01_seg.nii.gz"}
    manifest = {"edition": LUNG if written_out else "lung.json", "cases": [case]}
    (tmp_path / "cohort.json").write_text(json.dumps(manifest), encoding="utf-8")
    (study,) = read_manifest(tmp_path / "cohort.json")
    assert list(study.images) == ["ct"]
    assert str(study.edition) == "lung"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "brats2020"}, "must differ from brats2018"),
        ({"labels": {}}, "at least one class"),
        ({"labels": {"tumour": 0}}, "label value 0 of tumour"),
        ({"labels": {"a": 1, "b": [1, 2]}}, "label value 1 of b"),
        ({"labels": {"tumour": 1.5}}, "label value 1.5"),
        ({"regions": {"WT": ["edema"]}}, "region WT must name classes of .'tumour'."),
        ({"modalities": {}}, "at least one modality"),
        ({"modalities": {"ct": "_ct("}}, "no regular expression"),
        ({"lables": {}}, r"does not know \['lables'\]"),
        ({"channels": {"ct": 0}}, "every modality of .'ct', 'pet'. an index"),
        ({"slices": "yes"}, "slices has the wrong type"),
    ],
)
def test_faults_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(LUNG | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_edition(path)
    assert "mine.json" in str(caught.value)


def test_edition_file_must_exist_and_be_json(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_edition(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_edition(tmp_path / "bad.json")
    with pytest.raises(ValueError, match="must be an object"):
        edition_from([])


def test_bundle_check_finds_an_edition_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "lung.json").write_text(json.dumps(LUNG), encoding="utf-8")
    new = ["bundle", "new", "mine", "--edition", str(tmp_path / "lung.json"), "--folder", str(tmp_path)]
    assert CliRunner().invoke(app, new).exit_code == 0
    own = tmp_path / "mine" / "configs" / "edition.json"
    own.write_text(json.dumps(LUNG | {"labels": {"tumour": 1, "node": 2}}), encoding="utf-8")
    skip = [word for check in ("onnx", "torchscript") for word in ("--skip", check)]
    result = CliRunner().invoke(app, ["bundle", "check", str(tmp_path / "mine"), *skip])
    assert result.exit_code == 1
    assert "FAIL edition" in result.output
