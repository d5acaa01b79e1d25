"""The documented commands of the U-Net bundle, run as a user types them, in a small setting."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from medmap_monai.data.training_cases import read_training_cases

Run = Callable[..., subprocess.CompletedProcess[str]]
MONAI = ("python", "-m", "monai.bundle", "run")
# two levels instead of four, one epoch, few cases: the configuration is the bundle's own, only smaller
SMALL = ("--epochs", "1", "--network_def#channels", "[4,8]", "--network_def#deep_supervision", "0")
TRAIN = "['configs/train.json','configs/phantom.json']"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_train_infer_and_evaluate(make_bundle: Callable[..., Path], phantom_cohort: Path, run_command: Run) -> None:
    bundle = make_bundle()
    options = ("--dataset_dir", str(phantom_cohort), "--val_fraction", "0.25", "--test_fraction", "0.25")
    done = run_command(*MONAI, "training", "--config_file", TRAIN, *options, *SMALL, "--val_interval", "1", cwd=bundle)
    warned = [line for line in (done.stdout + done.stderr).splitlines() if "Warning" in line]
    assert ["parsing config_file" in line for line in warned] == [True]  # MONAI's, that configurations are code
    names = {row["name"] for row in rows(bundle / "runs/training.csv")}
    assert {"loss", "loss_fused", "loss_deep", "learning_rate", "val_val_mean_dice"} - {"loss_deep"} <= names
    saved = torch.load(bundle / "models/model.pt", weights_only=True)
    assert not any(key.startswith(("module.", "network.")) for key in saved)

    inference = "['configs/inference.json','configs/phantom.json']"
    run_command(
        *(*MONAI, "inference", "--config_file", inference, "--dataset_dir", str(phantom_cohort)),
        *("--output_dir", "OUT", *SMALL[2:]),
        cwd=bundle,
    )
    predictions = rows(bundle / "OUT/predictions.csv")
    assert [row["status"] for row in predictions] == ["ok"] * 8
    for row in predictions:
        reference = nib.load(phantom_cohort / row["case_id"] / f"{row['case_id']}_flair.nii.gz")
        result = nib.load(bundle / "OUT" / row["output"])
        assert result.shape == reference.shape
        np.testing.assert_array_equal(result.affine, reference.affine)
        assert set(np.unique(np.asarray(result.dataobj))) <= {0, 1, 2, 4}

    evaluate = "['configs/evaluate.json','configs/phantom.json']"
    run_command(
        *(*MONAI, "evaluate", "--config_file", evaluate, "--dataset_dir", str(phantom_cohort)),
        *("--output_dir", "EVAL", "--fold", "test", "--val_fraction", "0.25", "--test_fraction", "0.25", *SMALL[2:]),
        cwd=bundle,
    )
    metrics = rows(bundle / "EVAL/metrics.csv")
    assert len({row["case_id"] for row in metrics}) == 2
    assert len({row["subset"] for row in metrics}) == 15
    assert {row["region"] for row in metrics} >= {"WT", "TC", "ET", "ETpp"}
    assert json.loads((bundle / "EVAL/summary.json").read_text())["synthetic"] is True


def test_the_phantom_overlay_makes_its_own_cohort(make_bundle: Callable[..., Path], run_command: Run) -> None:
    bundle = make_bundle()
    run_command(*MONAI, "--config_file", TRAIN, *SMALL, "--phantom_cohort#cases", "12", cwd=bundle)
    assert len(list((bundle / "phantom").glob("BraTS20_*/*_seg.nii.gz"))) == 12
    assert (bundle / "models/model.pt").is_file()


def test_two_processes_train_one_model(
    make_bundle: Callable[..., Path], phantom_cohort: Path, run_command: Run
) -> None:
    bundle = make_bundle()
    files = "['configs/train.json','configs/multi_gpu_train.json','configs/phantom.json']"
    run_command(
        *("torchrun", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run", "training"),
        *("--config_file", files, "--dataset_dir", str(phantom_cohort), *SMALL, "--batch_size", "2"),
        *("--val_fraction", "0.1", "--val_interval", "1"),  # one case for two processes
        cwd=bundle,
    )
    saved = torch.load(bundle / "models/model.pt", weights_only=True)
    assert not any(key.startswith("module.") for key in saved)
    checkpoint = torch.load(bundle / "models/checkpoint.pt", weights_only=True)
    assert checkpoint["iteration"] == 2  # 8 - 1 - 1 = 6 training cases, 3 per process, batches of 2
    values = {row["name"]: float(row["value"]) for row in rows(bundle / "runs/training.csv")}
    assert 0 <= values["val_val_mean_dice"] <= 1
    assert [row["epoch"] for row in rows(bundle / "runs/training.csv") if row["name"] == "loss"] == ["1"]
    cases = read_training_cases(bundle / "models/model.pt")
    assert cases is not None
    assert (len(cases.train), len(cases.val), len(cases.images)) == (6, 1, 7)
    assert (cases.window, cases.orientation) == ((32, 32, 32), "LPS")


def test_absent_data_is_named(make_bundle: Callable[..., Path], run_command: Run) -> None:
    bundle = make_bundle()
    done = run_command(
        *MONAI, "training", "--config_file", "configs/train.json", "--dataset_dir", "nowhere", cwd=bundle, check=False
    )
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert not (bundle / "models/model.pt").exists()
    done = run_command(
        *(*MONAI, "inference", "--config_file", "configs/inference.json", "--dataset_dir", "nowhere"),
        cwd=bundle,
        check=False,
    )
    assert done.returncode != 0
    assert "nowhere" in done.stderr
