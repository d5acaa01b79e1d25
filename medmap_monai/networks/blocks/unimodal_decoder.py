"""The training-only decoder that segments from one modality, shared by all modalities ("sep" in the published code)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medmap_monai.networks.blocks.conv_unit import ConvUnit, PlainConv
from medmap_monai.networks.blocks.fast_conv import upsample


class UpUnit(nn.Module):
    """Up-sample by two, then a 3x3x3 unit."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, pre_norm: bool = False) -> None:
        super().__init__()
        self.unit = ConvUnit(spatial_dims, in_channels, out_channels, pre_norm=pre_norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.unit(upsample(x, 2))


class MergeUnit(nn.Module):
    """Concatenate two maps, then a 3x3x3 unit to ``out_channels`` and a 1x1x1 unit."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, pre_norm: bool = False) -> None:
        super().__init__()
        self.conv = ConvUnit(spatial_dims, in_channels, out_channels, pre_norm=pre_norm)
        self.out = ConvUnit(spatial_dims, out_channels, out_channels, kernel_size=1, pre_norm=pre_norm)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.out(self.conv(torch.cat([a, b], dim=1)))


class UnimodalDecoder(nn.Module):
    """Encoder maps of one modality, finest first -> logits (R, K, ...).

    Args:
        spatial_dims: 2 or 3.
        base_width: channels of the finest level; level l has ``base_width * 2**l``.
        levels: number of encoder levels.
        out_channels: number of classes K.
        pre_norm: norm and activation before each convolution.
    """

    def __init__(
        self, spatial_dims: int, base_width: int, levels: int, out_channels: int, pre_norm: bool = False
    ) -> None:
        super().__init__()
        widths = [base_width * 2**level for level in range(levels - 2, -1, -1)]  # coarse to fine
        self.ups = nn.ModuleList(UpUnit(spatial_dims, 2 * w, w, pre_norm) for w in widths)
        self.merges = nn.ModuleList(MergeUnit(spatial_dims, 2 * w, w, pre_norm) for w in widths)
        self.head = PlainConv(spatial_dims, base_width, out_channels)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        x = pyramid[-1]
        for i, (up, merge) in enumerate(zip(self.ups, self.merges, strict=True)):
            x = merge(up(x), pyramid[len(pyramid) - 2 - i])
        return self.head(x)
