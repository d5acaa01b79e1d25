"""A bundle run as MONAI's model zoo tests one: initialize, check_properties, run and finalize of each workflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

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


def test_the_page_on_submitting_leads_to_what_there_is() -> None:
    """Its commands are checks that other tests run; what it links to exists."""
    repository = Path(__file__).resolve().parents[2]
    text = (repository / "docs" / "how-to/submit-to-the-zoo.md").read_text(encoding="utf-8")
    assert "check_properties" in text or "initialize" in text  # what the tests above do
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    page = repository / "docs" / "how-to"
    assert all((page / link.split("#")[0]).exists() for link in links if not link.startswith("http"))
