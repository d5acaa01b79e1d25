"""Where the modalities of a study show something: nothing can be segmented where all that were used show nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

#: entry of a sample: integer MetaTensor (1, X, Y, Z), bit m of a voxel is set where modality m is not zero
SHOWN = "shown"


def pack_shown(image: MetaTensor) -> MetaTensor:
    """The entry ``shown`` of an image (M, ...) whose background is zero; with its geometry."""
    channels = image.as_subclass(Tensor)
    dtype = torch.uint8 if len(channels) <= 8 else torch.int64
    bits = torch.zeros(channels.shape[1:], dtype=dtype)
    for index, channel in enumerate(channels):
        bits |= (channel != 0).to(dtype) << index
    meta = {key: value for key, value in image.meta.items() if key != "affine"}  # MONAI warns of two affines
    return MetaTensor(bits[None], affine=image.affine.clone(), meta=meta)


def where_shown(shown: Tensor, modality_mask: Sequence[bool] | Tensor) -> Tensor:
    """Bool, the shape of ``shown``: where any modality that the mask (M,) allows shows something."""
    mask = [bool(flag) for flag in np.asarray(modality_mask).ravel()]
    wanted = sum(1 << index for index, flag in enumerate(mask) if flag)
    return (torch.as_tensor(shown).as_subclass(Tensor) & wanted) != 0
