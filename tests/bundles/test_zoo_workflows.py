"""A bundle run as MONAI's model zoo tests one: initialize, check_properties, run and finalize of each workflow."""

from __future__ import annotations

import csv
import importlib.util
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from medmap_monai.synthesis.cohort import write_synthetic_cohort
from medmap_monai.synthesis.phantom_anatomy import ensure_phantom_anatomy
from tests.bundles import starter_workflows

REPOSITORY = Path(__file__).resolve().parents[2]
SETS = {
    "train": (["train"], "train"),
    "inference": (["inference"], "infer"),
    "train+evaluate": (["train", "evaluate"], "train"),
}


@pytest.mark.parametrize("name", SETS)
def test_workflow(
    name: str, make_bundle: Callable[..., Path], random_weights: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    stems, kind = SETS[name]
    bundle = make_bundle(weights=random_weights)
    configs = bundle / "configs"
    workflow = ConfigWorkflow(
        config_file=[str(configs / f"{stem}.json") for stem in [*stems, "phantom"]],
        meta_file=str(configs / "metadata.json"),
        logging_file=str(configs / "logging.conf"),
        workflow_type=kind,
        bundle_root=str(bundle),
        dataset_dir=str(phantom_cohort),
        output_dir=str(tmp_path / "out"),
        device=torch.device("cpu"),
        epochs=1,
        val_interval=1,
        val_fraction=0.25,
        test_fraction=0.25,
        **({"subsets": ["t1", "flair+t1ce+t1+t2"]} if "evaluate" in name else {}),
    )
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    workflow.finalize()
    made = {"train": "training.csv", "inference": "predictions.csv", "train+evaluate": "metrics.csv"}[name]
    assert (tmp_path / "out" / made).stat().st_size > 0


@pytest.fixture(scope="module")
def six_cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Six synthetic studies of 6 mm, and the anatomy that they were made of."""
    folder = tmp_path_factory.mktemp("six")
    anatomy = ensure_phantom_anatomy(folder / "anatomy")
    return write_synthetic_cohort(folder / "cohort", anatomy, cases=6, spacing=5.0, seed=1), Path(anatomy)


@pytest.fixture
def starter(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle("brats_starter", weights=REPOSITORY / "bundles" / "brats_starter" / "models" / "model.pt")


def check_starter(out: Path, starter: Path, trained_on: int) -> None:
    """What the three workflows wrote: six cases each, and weights that are still those of the starter, nearly."""
    assert len(list((out / "inference").glob("*_seg.nii.gz"))) == 6
    assert {row["status"] for row in read(out / "inference" / "predictions.csv")} == {"ok"}
    scored = read(out / "train+evaluate" / "metrics.csv")
    assert len({row["case_id"] for row in scored}) == 6
    assert {row["subset"] for row in scored} == {"t1", "flair+t1ce+t1+t2"}
    rows = {row["name"]: float(row["value"]) for row in read(out / "train" / "training.csv")}
    assert 0 <= rows["val_val_mean_dice"] <= 1
    checkpoint = torch.load(out / "train" / "models" / "checkpoint.pt", weights_only=True)
    assert checkpoint["iteration"] == trained_on
    before = torch.load(starter / "models" / "model.pt", weights_only=True)
    after = torch.load(out / "train" / "models" / "model.pt", weights_only=True)
    assert before.keys() == after.keys()
    floats = [name for name, value in before.items() if value.is_floating_point()]
    assert max(float((before[n].float() - after[n].float()).abs().max()) for n in floats) < 0.01


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_starter_with_its_weights(starter: Path, six_cases: tuple[Path, Path], tmp_path: Path) -> None:
    """The training is tracked with MONAI's own settings for mlflow, where that is installed."""
    mlflow = importlib.util.find_spec("mlflow") is not None
    for name in starter_workflows.SETS:
        tracking = "mlflow" if mlflow and name == "train" else None
        starter_workflows.run_set(name, starter, *six_cases, tmp_path / "out", tracking=tracking)
    check_starter(tmp_path / "out", starter, trained_on=2)  # six studies, three to a batch
    if mlflow:
        with sqlite3.connect(tmp_path / "out" / "train" / "mlruns.db") as store:
            tracked = dict(store.execute("select key, count(*) from metrics group by key"))
        assert tracked["train_loss"] == 2
        assert tracked["val_mean_dice"] == 1


def test_the_starter_in_two_processes(
    starter: Path, six_cases: tuple[Path, Path], tmp_path: Path, run_command: Callable[..., Any]
) -> None:
    given = [starter, *six_cases, tmp_path / "out"]
    script = [*("torchrun", "--standalone", "--nproc_per_node=2"), starter_workflows.__file__, *map(str, given)]
    run_command(*script, cwd=REPOSITORY)
    check_starter(tmp_path / "out", starter, trained_on=1)  # three studies to each process


def test_the_page_on_submitting_leads_to_what_there_is() -> None:
    """Its commands are checks that other tests run; what it links to exists."""
    text = (REPOSITORY / "docs" / "how-to/submit-to-the-zoo.md").read_text(encoding="utf-8")
    assert "check_properties" in text or "initialize" in text  # what the tests above do
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    page = REPOSITORY / "docs" / "how-to"
    assert all((page / link.split("#")[0]).exists() for link in links if not link.startswith("http"))
