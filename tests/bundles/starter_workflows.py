"""The starter as MONAI's zoo tests a bundle; run as a script under torchrun it is one of two processes.

torchrun --nproc_per_node=2 tests/bundles/starter_workflows.py BUNDLE COHORT ANATOMY OUTPUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

#: name of a set -> configuration files, kind of workflow, what it writes
SETS = {
    "inference": (("inference",), "infer", "predictions.csv"),
    "train+evaluate": (("train", "evaluate"), "train", "metrics.csv"),
    "train": (("train",), "train", "training.csv"),
}


def run_set(
    name: str, bundle: Path, cohort: Path, anatomy: Path, output: Path, *overlays: str, tracking: str | None = None
) -> None:
    """initialize, check_properties, run and finalize, as ``check_workflow`` of the zoo does."""
    stems, kind, _ = SETS[name]
    configs = bundle / "configs"
    workflow = ConfigWorkflow(
        config_file=[str(configs / f"{stem}.json") for stem in (*stems, *overlays)],
        meta_file=str(configs / "metadata.json"),
        logging_file=str(configs / "logging.conf"),
        workflow_type=kind,
        bundle_root=str(bundle),
        tracking=tracking,
        **settings(cohort, anatomy, output / name),
        **({"initial_weights": str(bundle / "models" / "model.pt"), "studies": 6} if name == "train" else {}),
        **({"subsets": ["t1", "flair+t1ce+t1+t2"]} if "evaluate" in name else {}),
    )
    workflow.initialize()
    # MONAI 1.6 cannot check what its own tracking has patched: a list of handlers where it expects a text
    missing = [] if tracking else workflow.check_properties()
    if missing:
        raise ValueError(f"{name} lacks {missing}")
    workflow.run()
    workflow.finalize()


def settings(cohort: Path, anatomy: Path, output: Path) -> dict[str, Any]:
    """Six small cases; the network and its weights stay what they are."""
    return {
        "dataset_dir": str(cohort),
        "anatomy_dir": str(anatomy),
        "output_dir": str(output),
        "ckpt_dir": str(output / "models"),
        "edition": "brats2020",
        "device": "cpu",  # a text: mlflow keeps the settings as JSON
        "spacing": [5.0, 5.0, 5.0],
        "roi_size": [24, 32, 24],
        "study_shape": [24, 32, 24],
        "fold": "all",
        "epochs": 1,
        "batch_size": 3,
        "val_interval": 1,
        "val_studies": 2,
        "held_out": 1,
        "learning_rate": 1e-4,
        "num_workers": 0,
        "keep_maps": 0,
    }


def main() -> None:
    bundle, cohort, anatomy, output = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    for name in SETS:  # training comes last: its finalize ends a process of torchrun
        run_set(name, bundle, cohort, anatomy, output, *(["multi_gpu_train"] if name == "train" else []))


if __name__ == "__main__":
    main()
