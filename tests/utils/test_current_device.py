"""Streams, events and recordings are made on the GPU that computes, not on the first one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events

from medmap_monai.engines.captured_step import CapturedStep, CudaGraphs
from medmap_monai.utils.current_device import current_device
from tests.engines.test_captured_step import MASKS, METHODS, batch_of, total
from tests.engines.training import tiny_trainer


def stand_in_gpus(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Which GPU becomes the current one, in order; None: the one before again."""
    seen: list[str | None] = []

    @contextmanager
    def device(target: torch.device) -> Iterator[None]:
        seen.append(str(target))
        yield
        seen.append(None)

    monkeypatch.setattr(torch.cuda, "device", device)
    return seen


def test_only_a_gpu_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = stand_in_gpus(monkeypatch)
    with current_device("cpu"), current_device("cuda:1"):
        assert seen == ["cuda:1"]
    assert seen == ["cuda:1", None]


def test_a_training_runs_on_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        seen.append(f"enter {device}")
        yield
        seen.append("leave")

    trainer = tiny_trainer(tmp_path, epochs=1)
    monkeypatch.setattr("medmap_monai.engines.trainer.current_device", current)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), lambda: seen.append("step"))
    trainer.run()
    assert seen == ["enter cpu", "step", "leave"]


def test_steps_are_recorded_on_the_gpu_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    current = stand_in_gpus(monkeypatch)
    recorded_on: list[Any] = []

    @contextmanager
    def graph(graph: Any, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        recorded_on.append((current[-1], stream.made_on))
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None, pool=lambda: "pool"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: SimpleNamespace(made_on=current[-1]))
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    assert CudaGraphs(torch.device("cuda:1"))(lambda: "result")[0] == "result"
    assert recorded_on == [("cuda:1", "cuda:1")]

    method = METHODS["baseline unet"]().train()
    captured = CapturedStep(method, total)
    for seed in (1, 3):
        captured(batch_of(method, [MASKS[0]], seed), "all")
    assert isinstance(captured.recorder, CudaGraphs)
    assert captured.recorder.device == torch.device("cpu")  # where these weights lie
