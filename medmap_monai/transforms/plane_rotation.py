"""Random rotation by whole degrees in one coordinate plane, nearest neighbour: the published augmentation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import ensure_tuple_rep

from medmap_monai.transforms.imbalanced_dropout import zero_channels


def rotation_index(shape: Sequence[int], degrees: float) -> torch.Tensor:
    """Flat source index per pixel of a plane (H, W), -1 outside: what scipy's order-0 rotation copies from where."""
    index = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(tuple(shape))
    rotated = scipy.ndimage.rotate(index, degrees, axes=(0, 1), reshape=False, order=0, mode="constant", cval=-1.0)
    return torch.from_numpy(rotated.astype(np.int64))


class RandPlaneRotation(RandomizableTransform):
    """Rotate a channel-first image by a whole number of degrees in one random plane; size is kept.

    Equal to ``scipy.ndimage.rotate(reshape=False, order=0)``, with the index map of the plane worked out once and
    shared by all slices and channels. For training only: the result is a plain tensor and is not invertible.

    Args:
        degrees: the angle is a whole number from ``degrees[0]`` to ``degrees[1] - 1``.
        prob: probability of rotating.

    Source: the published training scripts (-10 to 9 degrees, always applied).
    """

    def __init__(self, degrees: tuple[int, int] = (-10, 10), prob: float = 1.0) -> None:
        RandomizableTransform.__init__(self, prob)
        if degrees[0] >= degrees[1]:
            raise ValueError(f"degrees must be a range (first, last + 1), got {degrees}")
        self.degrees = degrees
        self._angle = 0
        self._plane = (0, 1)

    def randomize(self, data: int) -> None:
        """Draw angle and plane for ``data`` spatial dimensions."""
        super().randomize(None)
        self._angle = int(self.R.randint(*self.degrees))
        planes = list(combinations(range(data), 2))
        self._plane = planes[int(self.R.randint(len(planes)))]

    def __call__(self, image: torch.Tensor, fill: float = 0.0, randomize: bool = True) -> torch.Tensor:
        """Image (C, ...) -> rotated image (C, ...), ``fill`` where the source lies outside."""
        source = torch.as_tensor(image).as_subclass(torch.Tensor)
        if randomize:
            self.randomize(source.ndim - 1)
        if not self._do_transform or self._angle == 0:
            return source
        axes = (self._plane[0] + 1, self._plane[1] + 1)
        moved = source.movedim(axes, (-2, -1))
        index = rotation_index(moved.shape[-2:], self._angle).flatten()
        outside = torch.nonzero(index < 0).flatten().to(source.device)  # found on the host, so that a GPU need not wait
        rotated = moved.flatten(-2).index_select(-1, index.clamp(min=0).to(source.device))
        rotated.index_fill_(-1, outside, fill)
        return rotated.unflatten(-1, moved.shape[-2:]).movedim((-2, -1), axes)


class RandPlaneRotationd(RandomizableTransform, MapTransform):
    """Dictionary version of :class:`RandPlaneRotation`: one draw for all ``keys``.

    Args:
        keys: images to rotate together.
        fill: value outside, per key; absent channels of ``image_key`` stay zero.
        kwargs: see :class:`RandPlaneRotation`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        fill: float | Sequence[float] = 0.0,
        image_key: Hashable = "image",
        present_key: Hashable = "present_mask",
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, 1.0)
        self.rotation = RandPlaneRotation(**kwargs)
        self.fill = ensure_tuple_rep(fill, len(self.keys))
        self.image_key = image_key
        self.present_key = present_key

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandPlaneRotationd:
        super().set_random_state(seed, state)
        self.rotation.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        first = self.first_key(item)
        if first == ():
            return item
        self.rotation.randomize(item[first].ndim - 1)
        for key, fill in self.key_iterator(item, self.fill):
            item[key] = self.rotation(item[key], fill=fill, randomize=False)
            if fill != 0 and key == self.image_key and self.present_key in item:
                item[key] = zero_channels(item[key], item[self.present_key])
        return item


RandPlaneRotationD = RandPlaneRotationDict = RandPlaneRotationd
