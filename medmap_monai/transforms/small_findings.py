"""Findings that are too small to be believed are taken out of a label map, and told."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medmap_monai.utils.connected_parts import connected_parts
from medmap_monai.utils.counted import counted
from medmap_monai.utils.voxel_volume import voxel_ml

#: a sentence beside a label map from which findings were removed
REMOVED = "removed_findings"


def remove_small_findings(labels: torch.Tensor, voxel: float, smallest: float) -> list[float]:
    """Set connected findings of ``labels`` (1, X, Y, Z) below ``smallest`` ml to background, in place.

    A finding is what hangs together over faces, edges or corners, whatever its classes. Source: ours.

    Returns:
        volume of each finding that was removed, ml, largest first.
    """
    if smallest <= 0:
        return []
    found, sizes = connected_parts((labels[0] > 0).cpu().numpy())
    volumes = np.concatenate([[0.0], sizes * voxel])  # the first is of what is no finding
    small = volumes < smallest
    small[0] = False
    labels[0][torch.from_numpy(small[found]).to(labels.device)] = 0
    return sorted((float(volume) for volume in volumes[small]), reverse=True)


class RemoveSmallFindingsd(MapTransform):
    """Class maps uint8 (1, X, Y, Z) without small findings; :data:`REMOVED` says what went.

    Args:
        keys: of the class maps, ``MetaTensor``.
        smallest: ml; 0 keeps everything.
        allow_missing_keys: pass items without a key on.

    Raises:
        ValueError: a negative ``smallest``.
    """

    def __init__(self, keys: KeysCollection = "pred", smallest: float = 0.0, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if smallest < 0:
            raise ValueError(f"smallest must not be negative (ml), got {smallest}")
        self.smallest = float(smallest)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            labels: MetaTensor = item[key]
            gone = remove_small_findings(labels, voxel_ml(labels.affine), self.smallest)
            if gone:
                told = counted(len(gone), "finding")
                largest = f"the largest of {gone[0]:.2g} ml; smallest_finding=0 keeps them"
                item[REMOVED] = f"{told} below {self.smallest:g} ml removed, {largest}"
        return item
