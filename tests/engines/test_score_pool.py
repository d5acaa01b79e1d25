"""Scores are the same wherever they are computed, and survive the death of a worker."""

from __future__ import annotations

import os

import pytest
import torch

from medmap_monai.engines import score_pool
from medmap_monai.engines.score_pool import ScorePool, cores_beside_a_gpu
from medmap_monai.metrics.edge_cases import EdgeCases
from medmap_monai.metrics.regions import make_regions

REGIONS = make_regions({"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}, {"ET": 5})
HOW = (REGIONS, (1.0, 1.5, 2.0), EdgeCases(), 40.0, False)


def maps(count: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (12, 14, 16)
    found = [torch.zeros(shape, dtype=torch.uint8) for _ in range(count + 1)]
    for i, label in enumerate(found[1:]):  # the first stays empty
        inner = label[2 : 8 + i % 4, 3:11, 4:12]
        inner.copy_(torch.randint(0, 4, inner.shape, generator=generator, dtype=torch.uint8))
    return found[:-1], found[-1]


class _Dies:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return (os._exit, (1,))


def test_processes_give_the_same_scores(caplog: pytest.LogCaptureFixture) -> None:
    predictions, reference = maps(4)
    expected = [ScorePool(0).start(prediction, reference, *HOW)() for prediction in predictions]
    with ScorePool(1) as pool:
        started = [pool.start(prediction, reference, *HOW) for prediction in predictions]
        assert [collect() for collect in started] == expected
        assert pool.workers == 1
        assert pool._pool is not None
        pool._pool.submit(print, _Dies())
        started = [pool.start(prediction, reference, *HOW) for prediction in predictions]
        assert [collect() for collect in started] == expected
        assert pool.workers == 0
    assert len([r for r in caplog.records if "in this process from now on" in r.message]) == 1


def test_a_cpu_keeps_its_cores() -> None:
    assert cores_beside_a_gpu(torch.device("cpu")) == 0


def test_a_gpu_gets_the_other_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_pool.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert cores_beside_a_gpu(torch.device("cuda"), loaders=2) == 13
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert cores_beside_a_gpu(torch.device("cuda"), loaders=2) == 0
