"""Measure on this machine what one training step and one window cost."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from medmap_monai.recipes.choices import Choices
from medmap_monai.recipes.cost import Speed
from medmap_monai.recipes.training_settings import evaluation_overrides, training_settings
from medmap_monai.utils.bundle_workflow import open_workflow

REPEATS = 3


def measure_speed(choices: Choices, repeats: int = REPEATS) -> Speed:
    """Seconds per training step and per window of every training of the plan, each the median of ``repeats``.

    The bundle's own trainer makes the steps, on random images in which every modality is present (the dearest case);
    loading and augmenting studies is not in it, and one process is measured.
    """
    per_step, per_window = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for training in choices.trainings:
            nowhere = Path(folder, "absent.csv")
            settings = training_settings(choices, training, nowhere, nowhere, Path(folder, training.name), 0)
            file = Path(folder, f"{training.name}.json")
            file.write_text(json.dumps(settings), encoding="utf-8")
            bundle = choices.bundles / training.bundle
            parser = open_workflow(bundle, "train", [*choices.overlays, str(file)], {}, "train").parser
            per_step[training.name] = _median(_training_step(parser), repeats)
            more = {} if choices.device is None else {"device": choices.device}
            overrides = {**evaluation_overrides(choices, training), **more, "dataset_dir": str(nowhere)}
            parser = open_workflow(bundle, "evaluate", choices.overlays, overrides).parser
            sweep, windows = _sweep(parser)
            per_window[training.name] = _median(sweep, repeats) / windows
    where = torch.cuda.get_device_name() if torch.cuda.is_available() and choices.device != "cpu" else "CPU"
    threads = "" if where != "CPU" else f", {torch.get_num_threads()} threads"
    return Speed(f"measured now on {where}{threads}, median of {repeats}, without loading data", per_step, per_window)


def _training_step(parser: ConfigParser) -> Callable[[], Any]:
    trainer = parser.get_parsed_content("train#trainer")
    size, roi = parser.get_parsed_content("batch_size"), list(parser.get_parsed_content("roi_size"))
    modalities = len(parser.get_parsed_content("modalities"))
    present = torch.ones(size, modalities, dtype=torch.bool)
    batch = {
        "image": torch.rand(size, modalities, *roi) + 0.1,
        "label": torch.randint(0, parser.get_parsed_content("num_classes"), (size, 1, *roi), dtype=torch.uint8),
        "present_mask": present,
        "modality_mask": present.clone(),
    }
    trainer.method.on_epoch_start(0)
    return lambda: trainer._iteration(trainer, batch)


def _sweep(parser: ConfigParser) -> tuple[Callable[[], Any], int]:
    """An all-subset sweep over a volume of two windows, or of two slices."""
    inferer, device = parser.get_parsed_content("inferer"), parser.get_parsed_content("device")
    network = parser.get_parsed_content("network_def").to(device).eval()
    roi: Sequence[int] = list(parser.get_parsed_content("roi_size"))
    shape = [roi[0] + roi[0] // 2, *roi[1:]] if len(roi) == 3 else [*roi, 2]
    image = torch.rand(1, len(parser.get_parsed_content("modalities")), *shape, device=device) + 0.1
    return lambda: list(inferer.sweep(image, network)), 2


def _median(work: Callable[[], Any], repeats: int) -> float:
    work()  # memory is allocated and kernels are chosen
    seconds = []
    for _ in range(repeats):
        _wait()
        start = time.perf_counter()
        work()
        _wait()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
