"""What a scanner and the preprocessing of a site do to a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medmap_monai.synthesis.deformation import rotation_matrix
from medmap_monai.synthesis.draw import Draw, gaussian_blur, sample_rigid


def scan(
    image: Tensor, positions: Tensor, brain: Tensor, surface: Tensor, draw: Draw, priors: Mapping[str, Any]
) -> Tensor:
    """``image`` (X, Y, Z) as measured: shifted a little, blurred, in thick slices, biased, noisy, masked.

    Args:
        image: what the sequence shows, with content beyond the mask.
        positions: (X, Y, Z, 3) mm.
        brain: bool (X, Y, Z), the skull-stripper's mask.
        surface: bool (X, Y, Z), the outermost voxels of the mask (:func:`mask_surface`).
        draw: random source.
        priors: the whole table.

    Returns:
        float32 (X, Y, Z), exactly 0 outside the mask and, in a few sequences, in a slab that was not scanned.
    """
    p = priors["scanner"]
    if draw.chance(p["misregistered"]):
        shift = draw.direction() * draw.uniform(p["shift"])
        turn = rotation_matrix(draw.direction() * draw.uniform(p["turn"]))
        image = sample_rigid(image, turn, shift, draw.spacing)
    sd = np.full(3, draw.uniform(p["blur"]))
    if draw.chance(p["thick"]):
        axis = int(draw.R.choice(3, p=[0.2, 0.2, 0.6]))  # axial slices are the most common
        sd[axis] = np.hypot(sd[axis], draw.uniform(p["slice"]) / 2.355)  # thickness = full width at half maximum
    image = gaussian_blur(image[None], (sd / draw.spacing).tolist())[0]
    image = image * torch.exp(draw.uniform(p["bias"]) * draw.smooth_noise(p["bias_cell"])[0])
    noise = draw.uniform(p["noise"])
    real = draw.white_noise().mul_(noise).add_(image)
    image = real.square_().add_(draw.white_noise().mul_(noise).square_()).sqrt_()
    image = image.clamp_(min=1e-4).pow_(draw.uniform(p["gamma"]))
    kept = brain
    if draw.chance(p["cut"]):
        kept = brain & ~_slab(positions, brain, draw, draw.uniform(p["cut_length"]))
    if draw.chance(p["soft_edge"]):  # resampled after skull-stripping: partial voxels at the edge
        image = image * gaussian_blur(brain.float()[None], [0.6] * 3)[0].sub_(0.1).mul_(1.4).clamp_(0, 1)
    overshoot = surface & (draw.smooth_noise(6.0)[0] > 1.5)
    image = torch.where(overshoot, -p["ringing"] * image, image)
    return torch.where(kept, image, torch.zeros_like(image))


def _slab(positions: Tensor, brain: Tensor, draw: Draw, length: float) -> Tensor:
    height = positions[..., 2]
    inside = height[brain]
    if inside.numel() == 0:
        return torch.zeros_like(brain)
    if draw.chance(0.5):
        return height > inside.max() - length
    return height < inside.min() + length


def mask_surface(brain: Tensor) -> Tensor:
    """Bool (X, Y, Z): the outermost voxels of the mask."""
    inside = brain.clone()
    for axis in range(3):
        for shift in (1, -1):
            inside &= brain.roll(shift, axis)
    return brain & ~inside
