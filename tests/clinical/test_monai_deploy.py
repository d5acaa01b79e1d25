"""The MONAI Deploy example, run by the SDK itself on a small DICOM export; its manifests, made by the packager."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from medmap_monai.clinical.volume import Volume, write_nifti
from tests.clinical.read_seg import check_reads_back, label_values
from tests.clinical.scanner import load, write_dicom_study

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "monai_deploy"
PAGE = REPOSITORY / "docs" / "how-to" / "monai-deploy.md"
PACKAGES = Path(os.environ.get("MEDMAP_MONAIDEPLOY", REPOSITORY / "build" / "monaideploy"))


def run_example(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    if not (PACKAGES / "holoscan").is_dir():
        pytest.skip(f"MONAI Deploy is not in {PACKAGES}; .ci/install_monaideploy puts it there")
    script = Path(__file__).with_name("monai_deploy_app.py")
    return subprocess.run(
        [sys.executable, str(script), str(PACKAGES), str(EXAMPLE), *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_good_study_is_finished_and_a_bad_one_is_told(heads: dict[str, Volume], tmp_path: Path) -> None:
    """The toy heads have no brain that a skull-stripper could find: that step is switched off in the settings."""
    export, models, out = tmp_path / "export", tmp_path / "models", tmp_path / "out"
    uid = write_dicom_study(export / "patient A", {name: heads[name] for name in ("flair", "t2")})
    (export / "patient B").mkdir()
    write_nifti(heads["flair"], export / "patient B" / "series7.nii.gz")
    shutil.copytree(REPOSITORY / "bundles" / "brats_starter", models / "brats_starter")
    settings = yaml.safe_load((EXAMPLE / "app.yaml").read_text(encoding="utf-8"))
    settings["prepare"]["skull_strip"] = "none"
    (tmp_path / "app.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    words = ["--input", str(export), "--output", str(out), "--model", str(models), "--workdir", str(tmp_path / "work")]
    (tmp_path / "work").mkdir()
    done = run_example(*words, HOLOSCAN_CONFIG_PATH=str(tmp_path / "app.yaml"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "study patient_B: 1 image needs your word" in done.stderr
    for step in ("register t2 to flair", "resample", "write"):
        assert f"patient_A: {step}" in done.stderr
    values = label_values(out / "patient_A_seg.json")
    for name in ("flair", "t2"):
        native = load(out / "patient_A" / "native" / f"patient_A_{name}_seg.nii.gz")
        seg = check_reads_back(out / "patient_A" / "dicom" / f"patient_A_{name}_seg.dcm", native, values)
        assert seg.StudyInstanceUID == uid
    assert (out / "patient_A" / "report.html").is_file()
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"patient_A"}, "prepared images are no result"
    assert not list((tmp_path / "work").iterdir()), "what lay in between is removed"


def test_the_packager_reads_its_settings() -> None:
    done = run_example("--manifests")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["app"]["command"] == '["python3", "/opt/holoscan/app"]'
    assert found["app"]["input"]["formats"] == ["file"]
    assert set(found["pkg"]["resources"]) == {"cpu", "gpu", "memory"}


def test_what_the_example_names_exists() -> None:
    """Without the SDK: the file compiles, its page and its requirements name what there is."""
    compile((EXAMPLE / "__main__.py").read_text(encoding="utf-8"), "__main__.py", "exec")
    (own, *_) = (Requirement(line) for line in (EXAMPLE / "requirements.txt").read_text().split())
    assert own.name == "medmap-monai"
    setup = ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert own.extras
    assert own.extras <= set(setup["options.extras_require"])
    page = PAGE.read_text(encoding="utf-8")
    for path in ("examples/monai_deploy", "examples/monai_deploy/app.yaml", "bundles/brats_starter"):
        assert path in page
        assert (REPOSITORY / path).exists()
