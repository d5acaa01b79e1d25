"""Train two-dimensional networks on the slices of three-dimensional studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.transforms import RandomizableTrait, ResizeWithPadOrCropd, Transform

from medmap_monai.data.case_store import CaseStore
from medmap_monai.data.seeded_dataset import CohortError, SeededCacheDataset, item_seed
from medmap_monai.data.study import StudyError


class SliceDataset(SeededCacheDataset):
    """Every slice of every study is an item, so that an epoch sees each of them once.

    Studies are loaded and preprocessed as volumes (statistics of a volume are those of inference), and cut along their
    last axis before the first random transform, which gets a volume of one slice. So the pipeline
    ``train_transforms(..., spatial_dims=2)`` serves both: on :class:`SeededCacheDataset` it draws one random slice of
    a study per epoch, here it gets the slice that the item stands for. Item i of epoch e is a pure function of
    (seed, e, i), as in the parent. Inference and evaluation need no slices: the inferers of this package run a
    two-dimensional network on volumes.

    Source: MyoPS2020 is published as 2-D training on centre crops of 256 x 256 (``spatial_size=[256, 256]``).

    Args:
        data: records; may be empty.
        transform: a ``Compose`` that makes 2-D samples of volumes.
        seed: any non-negative integer.
        cache_rate: share of the *studies* to keep in memory; the others are loaded for each of their slices, and once
            more to count them.
        spatial_size: centre crop or zero-pad every slice to this in-plane size, before anything random; None keeps it.
        labelled_only: leave out slices whose label is background only.
        store: keeps preprocessed studies on disk, see :class:`SeededCacheDataset`.
        num_workers: threads that fill the cache.
        progress: show a bar while filling.

    Raises:
        CohortError: studies that cannot be loaded, every bad case named.
        ValueError: when ``labelled_only`` leaves nothing of a cohort.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Sequence[Callable[..., Any]] | Callable[..., Any],
        seed: int = 0,
        cache_rate: float = 1.0,
        spatial_size: Sequence[int] | None = None,
        labelled_only: bool = False,
        store: CaseStore | None = None,
        num_workers: int | None = 1,
        progress: bool = False,
    ) -> None:
        self.labelled_only = labelled_only
        self.fit = None
        if spatial_size is not None:
            self.fit = ResizeWithPadOrCropd(("image", "label"), (*spatial_size, -1), allow_missing_keys=True)
        self.places: list[tuple[int, int]] = []  # study and slice of every item
        super().__init__(data, transform, seed, cache_rate, store=store, num_workers=num_workers, progress=progress)

    def set_data(self, data: Sequence[Any]) -> None:
        """Load the studies and count their slices."""
        super().set_data(data)
        self.places, errors = [], []
        for study in range(len(self.data)):
            volume = self._volume(study)
            if isinstance(volume, StudyError):
                errors.append(volume)
                continue
            shown = torch.ones(volume["image"].shape[-1], dtype=torch.bool)
            if self.labelled_only and "label" in volume:
                shown = torch.as_tensor(volume["label"] != 0).flatten(0, -2).any(0)
            self.places += [(study, int(place)) for place in torch.nonzero(shown).flatten()]
        if errors:
            raise CohortError(errors)
        if len(self.data) and not self.places:
            raise ValueError("labelled_only leaves no slice: every label is background only")

    def __len__(self) -> int:
        return len(self.places)

    def _volume(self, study: int) -> Any:
        """The study as a volume before the first random transform, or the StudyError that prevents it."""
        return self._cache[study] if study < self.cache_num else self._load_cache_item(study)

    def _load_cache_item(self, idx: int) -> Any:
        item = super()._load_cache_item(idx)
        return item if self.fit is None or isinstance(item, StudyError) else self.fit(item)

    def _transform(self, index: int) -> Any:
        index = int(index) % len(self)
        study, place = self.places[index]
        volume = self._volume(study)
        if isinstance(volume, StudyError):
            raise volume
        item = {**volume, "slice": place}
        for key in ("image", "label"):
            if key in item:
                item[key] = item[key][..., place : place + 1].clone()  # random transforms may write in place
        self.transform.set_random_state(seed=item_seed(self.seed, self.epoch, index))
        return self.transform(item, start=self.transform.get_index_of_first(_is_random))


def _is_random(transform: Any) -> bool:
    """Where MONAI's caching ends and every sample has its own run."""
    return isinstance(transform, RandomizableTrait) or not isinstance(transform, Transform)
