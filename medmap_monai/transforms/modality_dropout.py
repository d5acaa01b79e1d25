"""Random modality dropout: hide modalities from the fused path, never all of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from medmap_monai.modalities import Modalities


def keep_non_empty(rates: Sequence[float], uniforms: Sequence[float]) -> list[bool]:
    """Independent Bernoulli draws "keep i with probability 1 - rates[i]", conditioned on at least one being kept.

    Exact and without rejection: while nothing is kept, i is kept with the conditional probability
    ``(1 - rates[i]) / (1 - rates[i] * ... * rates[-1])``, which is one for the last candidate.

    Args:
        rates: missing rates, each in [0, 1).
        uniforms: one number in [0, 1) per rate.
    """
    none_from = np.append(np.cumprod(np.asarray(rates, dtype=np.float64)[::-1])[::-1], 1.0)
    kept: list[bool] = []
    for i, (rate, uniform) in enumerate(zip(rates, uniforms, strict=True)):
        keep = 1.0 - rate
        if not any(kept):
            keep = 1.0 if i == len(rates) - 1 else keep / (1.0 - none_from[i])
        kept.append(bool(uniform < keep))
    return kept


def missing_rates(modalities: Sequence[str], rates: float | Mapping[str, float]) -> list[float]:
    """One missing rate per modality, in order; raises ValueError for unknown names or rates outside [0, 1)."""
    names = Modalities(tuple(modalities))
    if isinstance(rates, Mapping):
        names.mask(rates)  # unknown names
        absent = [m for m in names if m not in rates]
        if absent:
            raise ValueError(f"missing rates need every modality; {absent} have none")
        values = [float(rates[m]) for m in names]
    else:
        values = [float(rates)] * len(names)
    if not all(0.0 <= v < 1.0 for v in values):
        raise ValueError(f"missing rates must lie in [0, 1), got {dict(zip(names, values, strict=True))}")
    return values


@dataclass(frozen=True)
class DropoutRates:
    """What :class:`RandModalityDropout` hides, and how often; its arguments of the same names.

    Args:
        rates: see there.
        prob: see there.
    """

    rates: float | Mapping[str, float] | None = None
    prob: float = 1.0


class RandModalityDropout(RandomizableTransform):
    """Draw which of the present modalities the fused path may see.

    Args:
        modalities: names in channel order; needed with ``rates`` by name.
        rates: None draws uniformly over the non-empty subsets of what is present; a number or a mapping
            ``{name: rate}`` drops each modality on its own with that probability, conditioned on one being left.
        prob: probability that dropout happens at all; otherwise everything present stays visible.

    Source: uniform subsets as in the published training scripts; rates are ours.
    """

    def __init__(
        self,
        modalities: Sequence[str] | None = None,
        rates: float | Mapping[str, float] | None = None,
        prob: float = 1.0,
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        self.modalities = None if modalities is None else Modalities(tuple(modalities))
        if isinstance(rates, Mapping) and self.modalities is None:
            raise ValueError("missing rates by name need the modalities")
        self.rates: list[float] | float | None
        if self.modalities is None or rates is None:
            self.rates = None if rates is None else missing_rates(("any",), rates)[0]
        else:
            self.rates = missing_rates(self.modalities, rates)
        self._kept: list[bool] = []

    def randomize(self, data: Sequence[bool] | torch.Tensor) -> None:
        """Draw for the presence flags ``data`` (M,); every number comes from ``self.R``."""
        super().randomize(None)
        present = [bool(flag) for flag in data]
        if not any(present):
            raise ValueError("modality dropout needs at least one present modality, got none")
        if self.modalities is not None and len(present) != len(self.modalities):
            raise ValueError(
                f"present mask has {len(present)} entries for {len(self.modalities)} modalities {self.modalities.names}"
            )
        places = [i for i, flag in enumerate(present) if flag]
        if self.rates is None:
            code = int(self.R.randint(1, 2 ** len(places)))
            drawn = [bool(code >> bit & 1) for bit in range(len(places))]
        else:
            rates = [self.rates[i] if isinstance(self.rates, list) else self.rates for i in places]
            drawn = keep_non_empty(rates, self.R.random_sample(len(places)).tolist())
        self._kept = [False] * len(present)
        for place, keep in zip(places, drawn, strict=True):
            self._kept[place] = keep or not self._do_transform

    def __call__(self, present_mask: Sequence[bool] | torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Bool mask (M,), a non-empty subset of ``present_mask`` (M,)."""
        if randomize:
            self.randomize(present_mask)
        return torch.tensor(self._kept)


class RandModalityDropoutd(RandomizableTransform, MapTransform):
    """Dictionary version of :class:`RandModalityDropout`: reads ``present_mask``, writes ``modality_mask`` and no more.

    The image is untouched, as training methods may supervise a hidden modality's own encoder. Put it last.

    Args:
        keys: entry to write.
        present_key: entry to read.
        kwargs: see :class:`RandModalityDropout`.
    """

    def __init__(
        self, keys: KeysCollection = "modality_mask", present_key: Hashable = "present_mask", **kwargs: Any
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys=True)
        RandomizableTransform.__init__(self, 1.0)
        self.present_key = present_key
        self.dropper = RandModalityDropout(**kwargs)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandModalityDropoutd:
        super().set_random_state(seed, state)
        self.dropper.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        mask = self.dropper(item[self.present_key])
        for key in self.keys:
            item[key] = mask.clone()
        return item


RandModalityDropoutD = RandModalityDropoutDict = RandModalityDropoutd
