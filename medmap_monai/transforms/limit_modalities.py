"""A mask of modalities kept to one subset."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from medmap_monai.modalities import Modalities


class LimitModalitiesd(MapTransform):
    """Show no modality but those of one subset, as a network dedicated to it sees studies. Source: ours.

    Args:
        keys: boolean masks (M,).
        modalities: names in channel order.
        subset: names that stay; None: all.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        ValueError: for an unknown name.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str],
        subset: Sequence[str] | None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.kept = None if subset is None else torch.as_tensor(Modalities(tuple(modalities)).mask(subset)).bool()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        if self.kept is not None:
            for key in self.key_iterator(item):
                item[key] = torch.as_tensor(item[key]) & self.kept
        return item
