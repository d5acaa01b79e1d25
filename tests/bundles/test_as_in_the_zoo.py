"""Bundles used as MONAI's own tools and the zoo's unit tests use them."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import create_workflow

from medmap_monai.engines.training_checkpoint import load_model

SMALL: dict[str, Any] = {"network_def#channels": [4, 8], "network_def#deep_supervision": 0, "device": "cpu"}
BUNDLES = Path(__file__).parents[2] / "bundles"
PART = {"val_fraction": 0.25, "test_fraction": 0.25}


def workflow(bundle: Path, kind: str, names: tuple[str, ...], **given: Any) -> Any:
    return create_workflow(
        config_file=[str(bundle / f"configs/{name}.json") for name in names],
        meta_file=str(bundle / "configs/metadata.json"),
        logging_file=str(bundle / "configs/logging.conf"),
        workflow_type=kind,
        bundle_root=str(bundle),
        **SMALL,
        **given,
    )


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medmap_monai.networks.unet import ModalityUNet

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("small") / "model.pt"
    torch.save(ModalityUNet(3, 4, 4, channels=(4, 8), deep_supervision=0).state_dict(), path)
    return path


def test_train_and_evaluate_files_together(
    make_bundle: Callable[..., Path], phantom_cohort: Path, small_weights: Path
) -> None:
    bundle = make_bundle(weights=small_weights)
    files = ("train", "evaluate", "phantom")  # evaluate.json over train.json, as the zoo merges them
    given = {"dataset_dir": str(phantom_cohort), "subsets": ["flair+t2"], "keep_maps": 0, **PART}
    for kind in ("eval", "train"):  # the parts of both are there
        opened = workflow(bundle, kind, files, **given)
        assert opened.check_properties() == []
    opened = workflow(bundle, "eval", files, fold="test", **given)
    opened.initialize()
    opened.run()
    opened.finalize()
    summary = json.loads((bundle / "evaluation/summary.json").read_text())
    assert (summary["n_cases"], summary["subsets"], summary["synthetic"]) == (2, ["flair+t2"], True)


@pytest.mark.parametrize(("kind", "name"), [("train", "train"), ("infer", "inference"), ("eval", "evaluate")])
def test_every_property_that_monai_asks_for_is_there(
    make_bundle: Callable[..., Path], phantom_cohort: Path, kind: str, name: str
) -> None:
    opened = workflow(make_bundle(), kind, (name, "phantom"), dataset_dir=str(phantom_cohort))
    assert opened.check_properties() == []
    assert opened.evaluator is not None


def test_amp_initial_weights_and_more_epochs(
    make_bundle: Callable[..., Path], phantom_cohort: Path, small_weights: Path
) -> None:
    bundle = make_bundle()
    given = {"dataset_dir": str(phantom_cohort), "val_interval": 9, "learning_rate": 1e-12, **PART}
    opened = workflow(
        bundle, "train", ("train", "phantom"), epochs=1, amp=True, initial_weights=str(small_weights), **given
    )
    assert opened.trainer.amp is True
    opened.trainer.amp = False  # MONAI's autocast is for CUDA
    opened.trainer.scaler = None
    opened.run()
    start = torch.load(small_weights, weights_only=True)
    for key, value in load_model(opened.network_def, bundle / "models/model.pt").state_dict().items():
        torch.testing.assert_close(value, start[key], rtol=0, atol=1e-5)
    workflow(bundle, "train", ("train", "phantom"), epochs=2, **given).run()
    with (bundle / "runs/training.csv").open(newline="") as file:
        assert {row["epoch"] for row in csv.DictReader(file)} == {"1", "2"}


def test_mlflow_keeps_losses_and_metrics(make_bundle: Callable[..., Path], phantom_cohort: Path) -> None:
    pytest.importorskip("mlflow", reason="needs the extra 'tracking'")
    bundle = make_bundle()
    given = {"dataset_dir": str(phantom_cohort), "epochs": 2, "val_interval": 1, **PART}
    opened = workflow(bundle, "train", ("train", "phantom"), tracking="mlflow", **given)
    opened.run()
    with sqlite3.connect(bundle / "runs/mlruns.db") as store:
        found = dict(store.execute("select key, count(*) from metrics group by key"))
    assert found["train_loss"] == 2  # four training cases, batches of four, two epochs
    assert found["val_mean_dice"] == 2


def test_tensorboard_by_an_overlay(make_bundle: Callable[..., Path], phantom_cohort: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="extra 'tracking'")
    bundle = make_bundle()
    overlay = {
        "+train#handlers": [
            {
                "_target_": "TensorBoardStatsHandler",
                "log_dir": "$@output_dir + '/tensorboard'",
                "tag_name": "train_loss",
                "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
            }
        ]
    }
    (bundle / "configs/tensorboard.json").write_text(json.dumps(overlay))
    given = {"dataset_dir": str(phantom_cohort), "epochs": 1, "val_interval": 9, **PART}
    workflow(bundle, "train", ("train", "phantom", "tensorboard"), **given).run()
    events = reader.EventAccumulator(str(bundle / "runs/tensorboard"))
    events.Reload()
    assert len(events.Scalars("train_loss")) == 1


def test_without_amp_no_stage_has_it() -> None:
    """A stage of its own, such as the teacher's, follows the bundle's ``amp`` too."""
    found = {}
    for path in sorted(BUNDLES.glob("*/configs/train.json")):
        content = json.loads(path.read_text())
        stages = [part["trainer"] for part in content.values() if isinstance(part, dict) and "trainer" in part]
        found[path.parts[-3]] = {stage["amp"] for stage in stages if "amp" in stage}
    assert set().union(*found.values()) == {"@amp"}, found
    assert len(found) > 10
