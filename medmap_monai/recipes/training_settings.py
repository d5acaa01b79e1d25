"""The configuration of one training, and what of it an evaluation must know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmap_monai.data.editions import get_edition
from medmap_monai.recipes.choices import Choices
from medmap_monai.recipes.recipe import Training
from medmap_monai.utils.json_file import read_json

# keys that the evaluation command has options for, or that concern training alone
_NOT_FOR_EVALUATION = frozenset(
    ("bundle_root", "dataset_dir", "output_dir", "checkpoint", "device", "edition", "split_file", "protocol")
    + ("val_fraction", "test_fraction", "seed", "num_workers")
)


def merged(choices: Choices, bundle: str, config: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Top-level values of a bundle's configuration with its overlays and ``more`` on top, unresolved.

    Raises:
        FileNotFoundError: the bundle or the configuration does not exist.
    """
    content: dict[str, Any] = {}
    for name in (config, *choices.overlays):
        path = choices.bundles / bundle / "configs" / f"{name}.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; --bundles names the folder of the bundles")
        content.update(read_json(path, "configuration"))
    return {**content, **(more or {})}


def scheduled(choices: Choices, training: Training) -> dict[str, Any]:
    """What the recipe and the user set for a training; the phantom has sizes and schedule of its overlay."""
    task = choices.task
    schedule = {} if choices.phantom else task.schedule
    epochs = {} if choices.epochs is None else {"epochs": choices.epochs}
    return {**task.settings, **schedule, **training.settings, **epochs, **choices.overrides}


def training_settings(choices: Choices, training: Training, manifest: Path, split: Path, run: Path, seed: int) -> Any:
    """Content of the configuration that is merged over the bundle's for this run."""
    chosen = scheduled(choices, training)
    device = {} if choices.device is None else {"device": choices.device}
    resample = {"train#preprocessing#resample": True} if choices.resample else {}
    return {
        "dataset_dir": str(manifest),
        "edition": choices.edition,
        "split_file": str(split),
        "missing_rates": None,  # the split says what each case has
        "ckpt_dir": str(run / "models"),
        "output_dir": str(run),
        "protocol": choices.train_protocol,
        "seed": seed,
        "resume": True,
        # as published: nothing is validated or selected, the last epoch is tested
        "val_interval": merged(choices, training.bundle, "train", chosen)["epochs"] + 1,
        "validate#dataset#data": [],
        **device,
        **resample,
        **chosen,
    }


def evaluation_overrides(choices: Choices, training: Training) -> dict[str, Any]:
    """Those settings of a training that its network or windows at evaluation depend on."""
    known = merged(replace(choices, phantom=None), training.bundle, "evaluate")  # overlays serve training too
    chosen = scheduled(choices, training)
    roots = {key: key.split("#")[0].split("::")[0] for key in chosen}
    return {k: v for k, v in chosen.items() if roots[k] in known and roots[k] not in _NOT_FOR_EVALUATION}


def training_steps(choices: Choices, training: Training) -> int:
    """Optimiser steps of one run, of all its stages."""
    config = merged(choices, training.bundle, "train", scheduled(choices, training))
    items = choices.folds[0] * (choices.shape[-1] if get_edition(choices.edition).slices else 1)
    per_process = -(-items // choices.processes)
    return int(training.stages * config["epochs"] * -(-per_process // config["batch_size"]))


def windows_of_a_case(choices: Choices, training: Training) -> int:
    """Windows of one study at evaluation (overlap 0.5), those of background alone included."""
    config = merged(choices, training.bundle, "evaluate", evaluation_overrides(choices, training))
    roi = [int(n) for n in config["roi_size"]]
    planes = 1 if len(roi) == len(choices.shape) else choices.shape[-1]
    per_axis = [
        -(-max(0, size - window) // max(1, window // 2)) + 1 for size, window in zip(choices.shape, roi, strict=False)
    ]
    return planes * math.prod(per_axis)
