"""Imbalanced modality dropout: each case keeps one subset for good, and missing rates differ between modalities."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from medmap_monai.data.splits import read_split
from medmap_monai.data.study import StudyError
from medmap_monai.modalities import SUBSET_SEPARATOR, Modalities
from medmap_monai.transforms.modality_dropout import keep_non_empty, missing_rates
from medmap_monai.utils.counted import counted


def case_uniform(seed: int, case_id: str, modality: str) -> float:
    """A number in [0, 1) that depends on its arguments only: the same on every platform, run and worker."""
    digest = hashlib.sha256(f"{seed}\n{case_id}\n{modality}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / float(1 << 53)


@dataclass(frozen=True)
class MissingModalities:
    """What each case of imperfect data lacks; the arguments of :class:`ImbalancedModalityDropout`.

    Args:
        subsets: see there.
        rates: see there.
        seed: see there.
    """

    subsets: Mapping[str, Iterable[str] | str] | str | os.PathLike[str] | None = None
    rates: float | Mapping[str, float] | None = None
    seed: int = 0


class ImbalancedModalityDropout(Transform):
    """Leave each case the modalities that a split grants it, or that rates and a seed give it.

    Deterministic, hence cached by caching datasets: a case keeps its subset in every epoch and on every worker. It
    depends on names only, not on the channel order or on the other cases. (The split generator instead allots subsets
    to a whole cohort, which meets the rates more closely; prefer a split file for experiments.)

    Args:
        modalities: names in channel order.
        subsets: case id -> names (a list, or ``"flair+t1"``), or a split file, see
            :func:`medmap_monai.data.splits.read_split`.
        rates: missing rate per modality, or one for all, conditioned on a non-empty subset of what is present.
        seed: for ``rates``.

    Raises:
        ValueError: when both ``subsets`` and ``rates`` are given, or names or rates are not valid.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        subsets: Mapping[str, Iterable[str] | str] | str | os.PathLike[str] | None = None,
        rates: float | Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.modalities = Modalities(tuple(modalities))
        if subsets is not None and rates is not None:
            raise ValueError("imbalanced modality dropout takes subsets or rates, not both")
        if isinstance(subsets, str | os.PathLike):
            rows = read_split(subsets, self.modalities)
            subsets = {r.case_id: self.modalities.names if r.available is None else r.available for r in rows}
        self.subsets = None if subsets is None else {case: self._flags(names) for case, names in subsets.items()}
        self.rates = None if rates is None else missing_rates(self.modalities, rates)
        self.seed = int(seed)

    def _flags(self, names: Iterable[str] | str) -> tuple[bool, ...]:
        return self.modalities.mask(names.split(SUBSET_SEPARATOR) if isinstance(names, str) else names)

    def mask(
        self, case_id: str, present: Sequence[bool] | torch.Tensor, available: Iterable[str] | None = None
    ) -> tuple[bool, ...]:
        """The case's subset: a non-empty part of ``present`` (M,); ``available`` (names) limits it as well."""
        flags = [bool(flag) for flag in present]
        if available is not None:
            flags = [a and b for a, b in zip(flags, self._flags(available), strict=True)]
        if self.subsets is not None:
            if case_id not in self.subsets:
                raise StudyError(case_id, f"is not in the split, which lists {counted(len(self.subsets), 'case')}")
            flags = [a and b for a, b in zip(flags, self.subsets[case_id], strict=True)]
        if not any(flags):
            raise StudyError(
                case_id,
                f"none of its modalities is left: present are {list(self.modalities.select(list(map(bool, present))))}",
            )
        if self.rates is not None:
            # in the order of names, so that the result does not depend on the configured channel order
            order = sorted((m, i) for i, m in enumerate(self.modalities) if flags[i])
            kept = keep_non_empty(
                [self.rates[i] for _, i in order], [case_uniform(self.seed, case_id, m) for m, _ in order]
            )
            flags = [False] * len(flags)
            for (_, i), keep in zip(order, kept, strict=True):
                flags[i] = keep
        return tuple(flags)

    def __call__(  # type: ignore[override]
        self,
        image: torch.Tensor,
        case_id: str,
        present_mask: Sequence[bool] | torch.Tensor | None = None,
        available: Iterable[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (M, ...) with zero channels outside the case's subset, and the subset as a bool mask (M,)."""
        present = [True] * len(self.modalities) if present_mask is None else present_mask
        mask = torch.tensor(self.mask(case_id, present, available))
        return zero_channels(image, mask), mask


def zero_channels(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """``image`` (M, ...) with exact zeros in the channels that ``mask`` (M,) does not allow; a copy when any is cut."""
    if bool(mask.all()):
        return image
    cleared = image.clone()
    cleared[~mask] = 0
    return cleared


class ImbalancedModalityDropoutd(MapTransform):
    """Dictionary version of :class:`ImbalancedModalityDropout`.

    Sets ``present_mask`` and ``modality_mask`` and zeroes the other channels of ``keys``. With neither subsets nor
    rates it grants what the item's ``available`` entry (names) says, and removes that entry.

    Args:
        keys: images to zero.
        present_key, mask_key, case_key, available_key: names of the entries that are read and written.
        kwargs: see :class:`ImbalancedModalityDropout`.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        present_key: Hashable = "present_mask",
        mask_key: Hashable = "modality_mask",
        case_key: Hashable = "case_id",
        available_key: Hashable = "available",
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.dropper = ImbalancedModalityDropout(**kwargs)
        self.present_key = present_key
        self.mask_key = mask_key
        self.case_key = case_key
        self.available_key = available_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        available = item.pop(self.available_key, None)
        mask = torch.tensor(self.dropper.mask(item[self.case_key], item[self.present_key], available))
        for key in self.key_iterator(item):
            item[key] = zero_channels(item[key], mask)
        item[self.present_key] = mask
        item[self.mask_key] = mask.clone()
        return item


ImbalancedModalityDropoutD = ImbalancedModalityDropoutDict = ImbalancedModalityDropoutd
