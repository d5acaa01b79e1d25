"""How the work of an evaluation is divided; none of it changes a result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from medmap_monai.engines.score_pool import cores_beside_a_gpu

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationWork:
    """Which cases this process evaluates, and how many others help it.

    Args:
        num_shards, shard: this process evaluates every ``num_shards``-th case, beginning with number ``shard``;
            None: the world size and rank that torchrun sets, else 1 and 0.
        merge_only: evaluate nothing, merge what the shards left.
        num_workers: processes that load studies ahead.
        metric_workers: processes that compute scores; None: the other cores where a GPU computes, else none.
        progress: show progress and time left.

    Raises:
        ValueError: a shard outside the number of shards.
    """

    num_shards: int | None = None
    shard: int | None = None
    merge_only: bool = False
    num_workers: int = 0
    metric_workers: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        count, shard = self._place
        if not 0 <= shard < count:
            raise ValueError(f"shard must lie in 0..{count - 1} (num_shards {count}), got {shard}")

    @property
    def _place(self) -> tuple[int, int]:
        count = int(os.environ.get("WORLD_SIZE", 1)) if self.num_shards is None else self.num_shards
        shard = int(os.environ.get("RANK", 0)) if self.shard is None else self.shard
        return count, shard

    def share(self, cases: Sequence[T]) -> Sequence[T]:
        """The part of ``cases`` that is this process's."""
        count, shard = self._place
        return cases[shard::count]

    def score_workers(self, device: torch.device) -> int:
        """Processes that compute scores while ``device`` computes label maps."""
        if self.metric_workers is None:
            return cores_beside_a_gpu(device, self.num_workers)
        return self.metric_workers
