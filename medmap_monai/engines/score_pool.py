"""Scores of label maps, in this process or in others beside a GPU that computes the next maps."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medmap_monai.metrics.edge_cases import EdgeCases
from medmap_monai.metrics.lesion_wise import lesion_scores
from medmap_monai.metrics.region_scores import RegionScore, foreground_box, region_scores
from medmap_monai.metrics.regions import Region

_log = logging.getLogger(__name__)
_MOST = 16
Scores = list[RegionScore]


class ScoreTask(NamedTuple):
    """One map to score: class indices of both maps, and how they are compared (see ``region_scores``)."""

    prediction: NDArray[np.generic]
    reference: NDArray[np.generic]
    regions: Sequence[Region]
    spacing: tuple[float, ...]
    edge_cases: EdgeCases
    diagonal: float
    lesion_wise: bool


def score_map(task: ScoreTask) -> Scores:
    """Region scores, then lesion-wise ones where asked for."""
    prediction, reference = torch.from_numpy(task.prediction), torch.from_numpy(task.reference)
    found = region_scores(prediction, reference, task.regions, task.spacing, task.edge_cases, task.diagonal)
    return found + lesion_scores(prediction, reference, task.regions) if task.lesion_wise else found


def cores_beside_a_gpu(device: torch.device, loaders: int = 0) -> int:
    """Processes for scores: this process's share of the cores where a GPU computes; 0 where the cores themselves do."""
    if device.type != "cuda":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(_MOST, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1 - loaders))


class ScorePool:
    """Start scores now and collect them later; the numbers do not depend on where they are computed.

    Args:
        workers: processes, started with the first task; 0 computes in this process.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> ScorePool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def start(self, prediction: Tensor, reference: Tensor, *how: object) -> Callable[[], Scores]:
        """What returns the scores of a map when it is called.

        Args:
            prediction, reference: class indices of equal shape, on the CPU.
            how: the other fields of :class:`ScoreTask`.
        """
        if self.workers < 1:
            return partial(score_map, ScoreTask(prediction.numpy(), reference.numpy(), *how))  # type: ignore[arg-type]
        # no metric looks beyond the foreground, and less travels
        box = foreground_box(prediction, reference)
        maps = (np.ascontiguousarray(m[box].numpy()) for m in (prediction, reference))
        task = ScoreTask(*maps, *how)  # type: ignore[arg-type]
        try:
            if self._pool is None:
                context = multiprocessing.get_context("spawn")  # a forked process cannot use this one's GPU
                self._pool = ProcessPoolExecutor(self.workers, context, torch.set_num_threads, (1,))
            return partial(self._collect, self._pool.submit(score_map, task), task)
        except (BrokenProcessPool, OSError) as error:
            self._give_up(error)
            return partial(score_map, task)

    def _collect(self, future: Future[Scores], task: ScoreTask) -> Scores:
        try:
            return future.result()
        except BrokenProcessPool as error:
            self._give_up(error)
            return score_map(task)

    def _give_up(self, error: Exception) -> None:
        if self.workers:
            _log.warning("scores are computed in this process from now on: %s", error)
        self.workers, self._pool = 0, None
