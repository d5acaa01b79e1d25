"""What the sliding-window inferers share: window size, presence, background."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from monai.utils import fall_back_tuple
from torch import Tensor

from medmap_monai.networks.base import available, zero_absent

BACKGROUND_LOGIT = 10.0


def window_size(roi_size: Sequence[int] | int, image_size: Sequence[int], stride: int = 1) -> tuple[int, ...]:
    """The window in voxels, rounded up to the network's stride; entries that are not positive take the volume's size."""
    size = fall_back_tuple(roi_size, tuple(int(n) for n in image_size))
    return tuple(-(-int(n) // stride) * stride for n in size)


def volume_presence(image: Tensor, mask: Tensor | None) -> Tensor:
    """Bool mask (B, M) on the image's device: ``mask``, or what the *whole* volume shows (a channel that is not zero).

    A mask of one row serves every sample of the batch.
    """
    plain = image.as_subclass(Tensor)
    if mask is not None:
        mask = torch.as_tensor(mask).as_subclass(Tensor)
        if mask.ndim == 1:
            mask = mask[None]
        if mask.shape[0] == 1:
            mask = mask.expand(plain.shape[0], -1)
    return available(plain, mask)


def without_absent(image: Tensor, mask: Tensor) -> Tensor:
    """``image`` (B, M, ...) of the same type with zeros where ``mask`` (B, M) is False, whatever was there."""
    if bool(mask.all()):
        return image
    cleared = zero_absent(image.as_subclass(Tensor), mask)
    if isinstance(image, MetaTensor):
        return MetaTensor(cleared).copy_meta_from(image)
    return cleared


def foreground(windows: Tensor) -> Tensor:
    """Bool (n, M): which modalities of each window (n, M, ...) show anything."""
    return (windows != 0).flatten(2).any(dim=2)


def background_like(shape: Sequence[int], probabilities: bool, like: Tensor) -> Tensor:
    """Certain background of ``shape`` (n, K, ...): finite logits, or probabilities."""
    result = torch.zeros(list(shape), dtype=torch.float32, device=like.device)
    result[:, 0] = 1.0 if probabilities else BACKGROUND_LOGIT
    return result
