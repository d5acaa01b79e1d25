"""Two tiny evaluations of a two-modality network, as medmap evaluate writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medmap_monai.engines.encoder_features import EncoderFeatures, save_features
from medmap_monai.engines.subset_evaluator import EvaluationIncompleteError
from medmap_monai.networks.unet import ModalityUNet
from medmap_monai.report.page import Report, write_report
from medmap_monai.report.runs import read_run
from medmap_monai.transforms.pipelines import eval_transforms
from tests.engines.test_subset_evaluator import make_evaluator, write_study

MODALITIES = ("flair", "t2")


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory) -> list[Path]:
    """Runs ``plain`` (logs, features and a failed case beside it) and ``other``; the data say they are synthetic."""
    root = tmp_path_factory.mktemp("runs")
    cohort = root / "cohort"
    for number in range(1, 7):
        write_study(cohort, number, MODALITIES)
    write_study(cohort, 7, MODALITIES, label=False)
    (cohort / "dataset.json").write_text(json.dumps({"name": "Phantom <of> a test", "synthetic": True}))
    folders = []
    for seed, name in enumerate(("plain", "other")):
        torch.manual_seed(seed)
        network = ModalityUNet(3, in_channels=2, out_channels=4, channels=(4, 8), deep_supervision=0)
        evaluator = make_evaluator(
            cohort,
            root / name,
            network=network,
            modalities=MODALITIES,
            transform=eval_transforms(MODALITIES),
            minimum_voxels={"ET": 40},
        )
        with pytest.raises(EvaluationIncompleteError):
            evaluator.run()
        folders.append(root / name)
    _write_logs(folders[0])
    return folders


@pytest.fixture(scope="session")
def comparison(run_folders, tmp_path_factory) -> tuple[Report, str]:
    """The report of both runs, and its text."""
    runs = [read_run(run_folders[0], "plain"), read_run(run_folders[1], "<other>")]
    report = write_report(runs, tmp_path_factory.mktemp("report") / "comparison.html")
    return report, report.page.read_text(encoding="utf-8")


def _write_logs(folder: Path) -> None:
    epochs = range(1, 6)
    rows = [f"{e},{name},{1 / e:.4f}" for e in epochs for name in ("loss", "learning_rate")]
    (folder / "training.csv").write_text("\n".join(["epoch,name,value", *rows]) + "\n")
    rows = [f"{e},beta,{m},{1 + e / 10}" for e in epochs for m in MODALITIES] + [f"{e},eta,,0.01" for e in epochs]
    (folder / "balance.csv").write_text("\n".join(["epoch,name,modality,value", *rows]) + "\n")
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 12, 5)).astype(np.float32) + np.array([0, 3], dtype=np.float32)[:, None, None]
    cases = {"level0": np.array(["c"] * 12)}
    save_features(EncoderFeatures(MODALITIES, {"level0": values}, cases), folder / "features.npz")
