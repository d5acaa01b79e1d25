"""Random scale and shift of intensities, per modality or per slice of each modality."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import look_up_option

from medmap_monai.transforms.imbalanced_dropout import zero_channels


class RandIntensityJitter(RandomizableTransform):
    """Scale by U(1 - scale, 1 + scale), then shift by U(-shift, shift).

    MONAI's intensity transforms draw once per image or channel and shift background along; hence this one.

    Args:
        scale, shift: half widths of the two ranges, in units of the (normalised) image.
        per: ``channel`` draws once per modality; ``slice`` once per modality and index of the first spatial axis, as
            the published training scripts do.
        nonzero: leave zeros alone, so that background and absent modalities stay exactly zero.
        prob: probability of any change.
    """

    def __init__(
        self,
        scale: float = 0.1,
        shift: float = 0.1,
        per: str = "channel",
        nonzero: bool = True,
        prob: float = 1.0,
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        self.scale = scale
        self.shift = shift
        self.per = look_up_option(per, ("channel", "slice"))
        self.nonzero = nonzero
        self._factor = torch.ones(1)
        self._offset = torch.zeros(1)

    def randomize(self, data: torch.Tensor) -> None:
        super().randomize(None)
        size = list(data.shape[:2]) if self.per == "slice" else [data.shape[0], 1]
        shape = size + [1] * (data.ndim - 2)
        self._factor = torch.from_numpy(self.R.uniform(1 - self.scale, 1 + self.scale, shape).astype(np.float32))
        self._offset = torch.from_numpy(self.R.uniform(-self.shift, self.shift, shape).astype(np.float32))

    def __call__(self, image: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Image (M, ...) -> plain tensor (M, ...); the input is not changed."""
        source = torch.as_tensor(image).as_subclass(torch.Tensor)
        if randomize:
            self.randomize(source)
        if not self._do_transform:
            return source
        jittered = torch.addcmul(self._offset.to(source.device), source, self._factor.to(source.device))
        return jittered.masked_fill_(source == 0, 0.0) if self.nonzero else jittered


class RandIntensityJitterd(RandomizableTransform, MapTransform):
    """Dictionary version of :class:`RandIntensityJitter`; channels outside ``present_mask`` stay zero."""

    def __init__(
        self,
        keys: KeysCollection,
        present_key: Hashable = "present_mask",
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, 1.0)
        self.jitter = RandIntensityJitter(**kwargs)
        self.present_key = present_key

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandIntensityJitterd:
        super().set_random_state(seed, state)
        self.jitter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.jitter(item[key])
            if self.present_key in item:
                item[key] = zero_channels(item[key], item[self.present_key])
        return item


RandIntensityJitterD = RandIntensityJitterDict = RandIntensityJitterd
