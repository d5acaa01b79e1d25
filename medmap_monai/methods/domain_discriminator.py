"""A discriminator behind gradient reversal: features learn what it cannot tell apart."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn.functional import softplus


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        return -grad[0]


def reverse_gradient(features: Tensor) -> Tensor:
    """Identity whose gradient changes sign (Ganin and Lempitsky, 2015)."""
    return _ReverseGradient.apply(features)


class DomainDiscriminator(nn.Module):
    """Tell, voxel by voxel, features of the full path from those of the missing path.

    One optimiser trains both sides: the discriminator lowers its loss, the reversed gradient makes the features raise
    it. 1x1 convolutions keep it independent of the feature map's size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the features.
        channels: hidden channels.
    """

    def __init__(self, spatial_dims: int, in_channels: int, channels: int = 32) -> None:
        super().__init__()
        act = ("leakyrelu", {"negative_slope": 0.2})
        self.hidden = Convolution(spatial_dims, in_channels, channels, kernel_size=1, act=act, norm=None)
        self.head = Convolution(spatial_dims, channels, 1, kernel_size=1, conv_only=True)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, 1, ...), positive for the full path."""
        return self.head(self.hidden(features))

    def loss(self, full: Tensor, missing: Tensor, rows: Tensor) -> Tensor:
        """Binary cross-entropy over both domains, mean over voxels and over the samples that ``rows`` (B,) weighs."""
        real = softplus(-self(reverse_gradient(full)).float()).flatten(1).mean(dim=1)
        fake = softplus(self(reverse_gradient(missing)).float()).flatten(1).mean(dim=1)
        return (0.5 * (real + fake) * rows).sum() / rows.sum().clamp_min(1)
