"""What the sliding-window inferers share: the window grid, presence, background, slices as a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from monai.data.utils import dense_patch_slices
from monai.utils import ensure_tuple_rep, fall_back_tuple
from torch import Tensor

from medmap_monai.networks.base import available
from medmap_monai.networks.features import zero_absent

BACKGROUND_LOGIT = 10.0


def window_size(roi_size: Sequence[int] | int, image_size: Sequence[int], stride: int = 1) -> tuple[int, ...]:
    """The window in voxels, rounded up to a multiple of the network's stride.

    Entries that are not positive take the volume's size.
    """
    size = fall_back_tuple(roi_size, tuple(int(n) for n in image_size))
    return tuple(-(-int(n) // stride) * stride for n in size)


def window_grid(
    image_size: Sequence[int], window: Sequence[int], overlap: Sequence[float] | float
) -> list[tuple[slice, ...]]:
    """The fixed grid of windows over a volume that is at least as large; the same as MONAI's sliding window."""
    steps = []
    for size, roi, share in zip(image_size, window, ensure_tuple_rep(overlap, len(window)), strict=True):
        if not 0 <= share < 1:
            raise ValueError(f"overlap must lie in [0, 1), got {overlap}")
        steps.append(roi if roi == size else max(1, int(roi * (1 - share))))
    return dense_patch_slices(image_size, window, steps)


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


def with_meta(result: Tensor, source: Tensor) -> Tensor:
    """``result`` as a MetaTensor with the meta data of ``source`` where that is one; else as it is."""
    return MetaTensor(result).copy_meta_from(source) if isinstance(source, MetaTensor) else result


def without_absent(image: Tensor, mask: Tensor) -> Tensor:
    """``image`` (B, M, ...) of the same type with zeros where ``mask`` (B, M) is False, whatever was there."""
    if bool(mask.all()):
        return image
    return with_meta(zero_absent(image.as_subclass(Tensor), mask), image)


def foreground(windows: Tensor) -> Tensor:
    """Bool (n, M): which modalities of each window (n, M, ...) show anything."""
    return (windows != 0).flatten(2).any(dim=2)


def slices_as_batch(image: Tensor) -> Tensor:
    """Volumes (B, M, H, W, D) -> their slices (B * D, M, H, W), for networks that work on slices."""
    return image.as_subclass(Tensor).movedim(-1, 1).flatten(0, 1)


def slices_to_volume(slices: Tensor, volumes: int) -> Tensor:
    """Slices (B * D, K, H, W) -> volumes (B, K, H, W, D)."""
    return slices.unflatten(0, (volumes, -1)).movedim(1, -1)
