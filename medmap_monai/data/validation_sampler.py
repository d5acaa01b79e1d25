"""Share validation cases among processes, however few they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset, Sampler


class ValidationSampler(Sampler[int]):
    """Every case in exactly one process; with fewer cases than processes, every case in every process.

    MONAI's ``DistributedSampler`` cannot give some process nothing, and a process without cases would leave the
    others waiting for its share of the metrics. Seen by all alike, each case still has the same weight in a mean.

    Args:
        dataset: the validation cases.
        num_replicas: number of processes.
        rank: of this process.
    """

    def __init__(self, dataset: Dataset[Any], num_replicas: int = 1, rank: int = 0) -> None:
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank must lie in 0..{num_replicas - 1}, got {rank}")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank

    def __iter__(self) -> Iterator[int]:
        return iter(self._share())

    def __len__(self) -> int:
        return len(self._share())

    def _share(self) -> range:
        count = len(self.dataset)  # type: ignore[arg-type]
        return range(count) if count < self.num_replicas else range(self.rank, count, self.num_replicas)
