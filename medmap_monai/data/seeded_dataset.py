"""A caching data set whose randomness depends on seed, epoch and item only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset
from monai.transforms import RandomizableTrait, Transform

from medmap_monai.data.case_store import CaseStore
from medmap_monai.data.study import StudyError
from medmap_monai.data.study_dataset import find_study_error
from medmap_monai.utils.counted import counted


class CohortError(ValueError):
    """Studies that training cannot use, all of them at once.

    Args:
        errors: one error per bad case.
    """

    def __init__(self, errors: Sequence[StudyError]) -> None:
        self.errors = list(errors)
        lines = "\n".join(f"  {error}" for error in self.errors)
        super().__init__(f"{counted(len(self.errors), 'study')} cannot be used:\n{lines}")

    def __reduce__(self) -> tuple[type[CohortError], tuple[list[StudyError]]]:
        return (CohortError, (self.errors,))


def item_seed(seed: int, epoch: int, index: int) -> int:
    """A 32-bit seed for one item in one epoch; numpy guarantees the same number on every platform and version."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1)[0])


class SeededCacheDataset(CacheDataset):
    """``CacheDataset`` in which item i of epoch e is a pure function of (seed, e, i).

    Before the random part runs, the transforms are seeded for this very item, so the samples are the same for any
    number of workers, any order of access and after a resume. Whoever drives the epochs calls :meth:`set_epoch`
    before the loader starts the epoch; workers that persist over epochs see it too.

    Args:
        data: records; may be empty.
        transform: a ``Compose``; what comes before its first random transform is cached.
        seed: any non-negative integer; under DDP the same on every rank, since ranks see different items.
        cache_rate: share of the items to keep in memory.
        lazy: fill the cache when an item is first used, instead of now.
        copy_cache: copy a cached item before its random transforms. False saves the copy of a whole volume, and is
            right where no transform writes in place (the pipelines of this package do not).
        store: keeps what comes before the first random transform on disk, for the items that are not in memory; None
            computes it every time.
        device_part: what of the pipeline is left to the training process
            (:class:`~medmap_monai.transforms.device_part.DevicePart`); None or one that is off: nothing.
        num_workers: threads that fill the cache.
        progress: show a bar while filling.

    Raises:
        CohortError: studies that cannot be loaded, every bad case named, when the cache is filled.
        StudyError: the same for an item that is not cached, when it is asked for.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Sequence[Callable[..., Any]] | Callable[..., Any],
        seed: int = 0,
        cache_rate: float = 1.0,
        lazy: bool = False,
        copy_cache: bool = True,
        store: CaseStore | None = None,
        device_part: Any = None,
        num_workers: int | None = 1,
        progress: bool = False,
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.seed = int(seed)
        self.store = store if store else None
        self.device_part = device_part if device_part else None
        # in shared memory, so that workers that live longer than an epoch see the new one
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        super().__init__(
            data=data,
            transform=transform,
            cache_rate=cache_rate,
            num_workers=num_workers,
            progress=progress,
            copy_cache=copy_cache,
            runtime_cache=lazy,
        )

    @property
    def epoch(self) -> int:
        """The epoch whose samples are given out, from 0."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Give out the samples of ``epoch`` (from 0) from now on."""
        if epoch < 0:
            raise ValueError(f"epoch must not be negative, got {epoch}")
        self._epoch.fill_(int(epoch))

    def stored(self, index: int) -> dict[str, Any]:
        """Item ``index`` before its first random transform, from the store, which gets it where it is not there."""
        assert self.store is not None
        return self.store.get(self.data[index], lambda: self._deterministic(index))

    def _deterministic(self, index: int) -> Any:
        return self.transform(dict(self.data[index]), end=self._first_random())

    def _first_random(self) -> int:
        """Position of the first random transform, by MONAI's rule; all transforms where none is."""
        first = self.transform.get_index_of_first(
            lambda t: isinstance(t, RandomizableTrait) or not isinstance(t, Transform)
        )
        return len(self.transform.transforms) if first is None else int(first)

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        items = super()._fill_cache(indices)
        errors = [item for item in items if isinstance(item, StudyError)]
        if errors:
            raise CohortError(errors)
        return items

    def _load_cache_item(self, idx: int) -> Any:
        try:
            if self.store is None:
                return super()._load_cache_item(idx)
            stored = self.stored(idx)
            if idx >= self.cache_num:
                return stored
            return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in stored.items()}  # into memory
        except Exception as error:
            cause = find_study_error(error)
            if cause is None:
                raise
            if self.runtime_cache:
                raise cause from error
            return cause  # the other cases are still looked at, so that all bad ones are named together

    def _transform(self, index: int) -> Any:
        index = int(index) % len(self)
        seed = item_seed(self.seed, self.epoch, index)
        self.transform.set_random_state(seed=seed)
        try:
            if self.device_part is not None:
                return self.device_part.without(self._before_random(index), self._first_random(), seed)
            if self.store is None or index < self.cache_num:
                return super()._transform(index)
            return self.transform(self.stored(index), start=self._first_random())
        except Exception as error:
            cause = find_study_error(error)
            if cause is None or cause is error:
                raise
            raise cause from error

    def _before_random(self, index: int) -> Any:
        """Item ``index`` before its first random transform, from memory, from the store, or computed."""
        if index >= self.cache_num:
            return self._deterministic(index) if self.store is None else self.stored(index)
        if self._cache[index] is None:  # filled when first used
            self._cache[index] = self._load_cache_item(index)
        return deepcopy(self._cache[index]) if self.copy_cache else self._cache[index]
