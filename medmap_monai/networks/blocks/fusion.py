"""Fusion of per-modality features under a modality mask."""

from __future__ import annotations

import torch
from monai.networks.blocks import ADN, Convolution
from torch import Tensor, nn

from medmap_monai.networks.blocks.plain_instance_norm import PLAIN_INSTANCE


class ConcatFusion(nn.Module):
    """Zero-filled concatenation of the modalities and a 1x1 convolution, norm and activation.

    A 1x1 convolution over a concatenation is a sum of one 1x1 convolution per modality, so the per-modality part
    (:meth:`project`) is done once and a subset only adds parts up. Absent modalities never enter the sum.

    Args:
        spatial_dims: 2 or 3.
        modalities: number of modalities M.
        in_channels: channels of one modality's features.
        out_channels: channels of the fused features.
    """

    def __init__(self, spatial_dims: int, modalities: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.out_channels = out_channels
        self.projection = Convolution(
            spatial_dims,
            modalities * in_channels,
            modalities * out_channels,
            kernel_size=1,
            groups=modalities,
            bias=False,
            conv_only=True,
        )
        self.adn = ADN(
            ordering="NA",
            in_channels=out_channels,
            act=("leakyrelu", {"negative_slope": 0.1}),
            norm=PLAIN_INSTANCE,
            norm_dim=spatial_dims,
        )

    def project(self, features: Tensor) -> Tensor:
        """(B, M, C, ...) -> (B, M, C_out, ...): each modality through its own 1x1 convolution."""
        spatial = list(features.shape[3:])
        projected = self.projection(features.flatten(1, 2))
        return projected.reshape([features.shape[0], self.modalities, self.out_channels] + spatial)

    def forward(self, projected: Tensor, mask: Tensor, features: Tensor | None = None) -> Tensor:
        """Projected features (B, M, C_out, ...) and a bool mask (B, M) -> fused features (B, C_out, ...).

        ``features`` is there because every fusion block is called alike; this one needs the projected part only.
        """
        shape = list(mask.shape) + [1] * (projected.ndim - 2)
        kept = torch.where(mask.reshape(shape), projected, torch.zeros_like(projected))
        return self.adn(kept.sum(dim=1))
