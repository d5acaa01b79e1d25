"""docs/first-five-minutes.md: what it installs is there, and its commands run one after the other.

Its first study, of full size, is that of tests/pipelines/test_quickstart.py; tests/test_package.py installs the wheel.
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from monai.bundle import run as run_bundle
from monai.utils import set_determinism
from typer.testing import CliRunner

import medmap_monai
from medmap_monai.cli.main import app
from medmap_monai.synthesis.phantom_anatomy import ensure_phantom_anatomy

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / "docs" / "first-five-minutes.md").read_text(encoding="utf-8")


def blocks(title: str, language: str = "") -> list[str]:
    """The fenced blocks of a section."""
    section = TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^```(\w*)\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return [content for name, content in found if name == language]


def commands(title: str) -> list[str]:
    return [line for block in blocks(title) for line in block.splitlines()]


def medmap(command: str) -> str:
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, f"{command}\n{result.output}"
    return result.output


def train(command: str) -> None:
    """`python -m monai.bundle run training`, in this process, without others that load data, for one epoch."""
    words = shlex.split(command)
    assert words[:5] == ["python", "-m", "monai.bundle", "run", "training"]
    given = {key.removeprefix("--"): value for key, value in zip(words[5::2], words[6::2], strict=True)}
    numbers = {key: ast.literal_eval(value) for key, value in given.items() if value.isdigit()}
    run_bundle(run_id="training", **{**given, **numbers, "epochs": 1, "val_interval": 1, "num_workers": 0})


def test_what_is_installed() -> None:
    created, wheel = commands("Install")
    assert created.startswith("python3 -m venv ")
    (file,) = shlex.split(wheel)[2:]
    name, extras = file.removesuffix("]").split("[")
    assert name == f"dist/medmap_monai-{medmap_monai.__version__}-py3-none-any.whl"
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert set(extras.split(",")) <= set(setup["options.extras_require"])
    lowest, above = re.findall(r"3\.\d+", setup["options"]["python_requires"])
    versions = [f"3.{minor}" for minor in range(int(lowest[2:]), int(above[2:]))]
    assert f"Python {' or '.join(versions)} on Linux" in TEXT


def test_train_and_add_a_modality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page says, on fewer and coarser studies of a toy anatomy."""
    monkeypatch.chdir(tmp_path)
    anatomy = ensure_phantom_anatomy(tmp_path / "anatomy")
    for title in ("Train on your own data", "Add a modality"):
        for block in blocks(title, "json"):
            Path(f"{json.loads(block)['name']}.json").write_text(block, encoding="utf-8")
    synth, info, *steps = [*commands("Train on your own data"), *commands("Add a modality")]
    small = synth.replace("mni152", str(anatomy)).replace("--cases 8 --spacing 4", "--cases 6 --spacing 6")
    assert small != synth
    medmap(small)
    cases = sorted(path.name for path in Path("cohort").iterdir() if path.is_dir())
    with_t1 = [name for name in cases if list(Path("cohort", name).glob("*_t1.nii.gz"))]
    assert 0 < len(with_t1) < len(cases)
    assert "_t1.nii.gz: it belongs to a case of edition brats2020" in medmap(info)
    try:
        for command in steps:
            (medmap if command.startswith("medmap ") else train)(command)
    finally:
        set_determinism(None)
    assert Path("mine_unet", "models", "model.pt").is_file()
    assert set(pd.read_csv("evaluation/metrics.csv")["subset"]) == {
        *("flair", "t1ce", "t2", "flair+t1ce", "flair+t2", "t1ce+t2", "flair+t1ce+t2")
    }
    assert Path("report.html").stat().st_size > 10_000
    rows = pd.read_csv("segmentations/predictions.csv").set_index("case_id")
    assert sorted(rows.index) == cases
    assert [name for name, used in rows["modalities_used"].items() if "t1" in used.split("+")] == with_t1
    for name in cases:
        values = np.unique(np.asarray(nib.load(f"segmentations/{name}_seg.nii.gz").dataobj))
        assert set(values.tolist()) <= {0, 1}
