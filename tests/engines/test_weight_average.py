from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler

from medmap_monai.engines.weight_average import WeightAverage
from tests.engines.test_training_checkpoint import Stop, StopAt
from tests.engines.training import tiny_method, tiny_trainer

_MOMENTA = {"momentum": 0.01, "momentum_warmup": 0.5, "warmup_iters": 4}


def averaged(folder: Path, *handlers: Any) -> Any:
    """A training of four epochs that deploys and restores its average, as the starter's."""
    made: list[Any] = []

    def method(network: Any) -> Any:
        made.append(tiny_method(network))
        made.append(WeightAverage(made[0].network, **_MOMENTA))
        return made[0]

    trainer = tiny_trainer(folder, epochs=4, make_method=method, handlers=handlers)
    average = made[1]
    average.attach(trainer)
    checkpoint = next(h for h in _handlers(trainer, Events.STARTED) if hasattr(h, "objects"))
    checkpoint.network = average.ema_model
    checkpoint.objects["average"] = average.ema_model
    trainer.run()
    return trainer


def _handlers(trainer: Any, event: Events) -> list[Any]:
    return [getattr(handler, "__self__", handler) for handler, *_ in trainer._event_handlers[event]]


@pytest.mark.parametrize("iteration", [4, 8])
def test_the_average_of_a_resumed_run_is_that_of_an_uninterrupted_one(tmp_path: Path, iteration: int) -> None:
    averaged(tmp_path / "whole")
    with pytest.raises(Stop):
        averaged(tmp_path / "cut", StopAt(iteration))
    resumed = averaged(tmp_path / "cut")
    assert resumed.state.ema_momentum == pytest.approx(0.01)
    one, two = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("whole", "cut"))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_without_an_interruption_it_is_ignites(tmp_path: Path) -> None:
    results = []
    for kind in (EMAHandler, WeightAverage):
        torch.manual_seed(0)
        layer = torch.nn.Linear(2, 2)
        average = kind(layer, **_MOMENTA)
        engine = Engine(lambda *_, layer=layer: layer.weight.data.add_(1.0))
        average.attach(engine)
        engine.run([0] * 3, max_epochs=3)
        results.append(average.ema_model.weight)
    assert torch.equal(*results)
