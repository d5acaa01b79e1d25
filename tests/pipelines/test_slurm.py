"""The batch scripts, from split to report as the how-to page submits them, with a stand-in for SLURM."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medmap_monai.data.phantom import write_cohort
from tests.pipelines.recipes import REPOSITORY

SCRIPTS = sorted((REPOSITORY / "pipelines" / "slurm").glob("*.sbatch"))
STAGES = ["split", "train", "evaluate", "merge", "report"]
PAGE = REPOSITORY / "docs" / "how-to" / "run-on-slurm.md"


def test_there_is_a_script_per_stage() -> None:
    assert sorted(path.stem for path in SCRIPTS) == sorted(STAGES)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_sound(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert "# Change: " in text
    assert not re.search(r"^#SBATCH --(partition|account|qos|nodelist|mail)", text, re.MULTILINE)  # of a site
    # SLURM ignores what stands below the first command
    assert "#SBATCH" not in text.split("\nset -euo pipefail\n")[1]
    named = set(re.findall(r"\bMEDMAP_[A-Z0-9_]+", text)) - {"MEDMAP_ENVIRONMENT"}
    assert named <= set(re.findall(r"`(MEDMAP_[A-Z0-9_]+)`", PAGE.read_text()))


def test_training_processes_do_not_see_the_job() -> None:
    """Else ignite takes the local rank of SLURM's task, which is 0 for every process that torchrun starts."""
    text = (REPOSITORY / "pipelines" / "slurm" / "train.sbatch").read_text()
    assert "srun env --unset=SLURM_JOB_ID torchrun" in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_variable_that_is_not_set_is_named(script: Path, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert re.search(r"MEDMAP_(DATA|OUTPUT): folder of", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Environment with sbatch, srun and scontrol on PATH, a cohort, and the files of the repository in the folder."""
    tools = tmp_path / "bin"
    tools.mkdir()
    stub = Path(__file__).with_name("slurm_stub.py")
    for name in ("sbatch", "srun", "scontrol"):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stub}" {name} "$@"\n')
        (tools / name).chmod(0o755)
    shutil.copytree(REPOSITORY / "pipelines" / "slurm", tmp_path / "pipelines" / "slurm")
    for name in ("brats_passion_rfnet", "brats_unet_dropout"):
        ignored = shutil.ignore_patterns("*.pt", "runs", "phantom")
        shutil.copytree(REPOSITORY / "bundles" / name, tmp_path / "bundles" / name, ignore=ignored)
    write_cohort(tmp_path / "BraTS2020", cases=8, shape=(32, 32, 32), seed=3)
    settings = {"missing_rates": None, "epochs": 1, "batch_size": 2, "network_def#base_width": 4}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    small = {
        "MEDMAP_VAL": "2",
        "MEDMAP_TEST": "3",
        "MEDMAP_SPLIT_OPTIONS": "--allocation independent",
        "MEDMAP_SETTINGS": "settings.json",
        "MEDMAP_OVERLAY": "phantom",
        "MEDMAP_EVALUATE_OPTIONS": "--set network_def#base_width=4",
        "MEDMAP_PORT": str(port),
    }
    stand_in = {"STUB_SPOOL": str(tmp_path / "spool"), "STUB_ARRAY": "1-2"}
    return {**os.environ, **small, **stand_in, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_submit_as_the_page_says(cluster: dict[str, str], tmp_path: Path) -> None:
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=cluster,
        capture_output=True,
        text=True,
        check=False,
    )
    logs = "\n".join(path.read_text()[-2000:] for path in sorted((tmp_path / "spool").glob("*.out")))
    assert done.returncode == 0, done.stderr + logs
    jobs = json.loads((tmp_path / "spool" / "jobs.json").read_text())
    assert [job["script"] for job in jobs] == [f"{stage}.sbatch" for stage in STAGES]
    assert [job["code"] for job in jobs] == [0] * 5, logs
    assert [job["dependency"] for job in jobs] == ["", "afterok:1", "afterok:2", "afterany:3", "afterok:4"]
    output = tmp_path / "runs" / "passion_rfnet"
    # two nodes trained one model: 3 cases, 2 per process, one batch of 2
    assert torch.load(output / "models" / "checkpoint.pt", weights_only=True)["iteration"] == 1
    with (output / "clinical" / "metrics.csv").open(newline="") as file:
        metrics = list(csv.DictReader(file))
    with (output / "split.csv").open(newline="") as file:
        test_cases = {row["case_id"] for row in csv.DictReader(file) if row["fold"] == "test"}
    assert {row["case_id"] for row in metrics} == test_cases
    assert len(test_cases) == 3
    assert len({row["subset"] for row in metrics}) == 15
    assert (output / "report_clinical_files" / "table_dice.tex").is_file()
    assert "merged" not in (tmp_path / "spool" / "job3.out").read_text().splitlines()[0]
    assert "this share is done" in (tmp_path / "spool" / "job3.out").read_text()  # there were two shares
