"""The fusion block of mmFormer and M2FTrans: 1x1 over the masked concatenation of the modalities, 3x3, 1x1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medmap_monai.networks.blocks.backend import selects_rows
from medmap_monai.networks.blocks.conv_unit import ConvUnit
from medmap_monai.networks.blocks.fast_conv import convolve


class JointFusion(nn.Module):
    """Fuse M maps of C channels into one.

    The 1x1 convolution over a concatenation is a sum over modalities, and norm and activation before it work per
    channel. So each modality's part (:meth:`project`) is computed once, and a subset only adds parts up.

    Args:
        spatial_dims: 2 or 3.
        modalities: number of modalities M.
        width: channels C.
        pre_norm: norm and activation before each convolution (mmFormer) instead of after it.
        padding_mode: padding of the 3x3 convolution; published: zeros in mmFormer, reflect in M2FTrans.
    """

    def __init__(self, spatial_dims: int, modalities: int, width: int, pre_norm: bool, padding_mode: str) -> None:
        super().__init__()
        self.modalities = modalities
        self.pre_norm = pre_norm
        self.mix = ConvUnit(spatial_dims, modalities * width, width, kernel_size=1, pre_norm=pre_norm)
        self.context = ConvUnit(spatial_dims, width, width, padding_mode=padding_mode, pre_norm=pre_norm)
        self.out = ConvUnit(spatial_dims, width, width, kernel_size=1, pre_norm=pre_norm)

    def project(self, features: Tensor, wanted: Tensor | None = None) -> list[Tensor]:
        """Each modality's part of the first convolution, without its bias.

        Args:
            features: (B, M, C, ...).
            wanted: bool (B, M), modalities that will be used; one that no row wants is left out. None means all.

        Returns:
            one (B, C, ...) per modality, (B, 0) for one that was left out.
        """
        weights = self.mix.conv.weight.chunk(self.modalities, dim=1)
        used: list[bool] = [True] * self.modalities
        if not torch.jit.is_scripting():
            if wanted is not None and selects_rows(features):
                used = wanted.any(dim=0).tolist()
                used[0] = used[0] or not any(used)  # somebody has to tell the shape
        parts: list[Tensor] = []
        for m in range(self.modalities):
            if used[m]:
                x = features[:, m]
                if self.pre_norm:
                    x = self.mix.activate(x)
                parts.append(convolve(x, weights[m], None))
            else:
                parts.append(features.new_zeros([features.shape[0], 0]))
        return parts

    def forward(self, mixed: Tensor) -> Tensor:
        """From the sum of the projected parts (R, C, ...) to the fused map (R, C, ...)."""
        bias = self.mix.conv.bias
        if bias is not None:
            mixed = mixed + bias.reshape([-1] + [1] * (mixed.ndim - 2))
        if not self.pre_norm:
            mixed = self.mix.activate(mixed)
        return self.out(self.context(mixed))

    def fuse_joined(self, joined: Tensor) -> Tensor:
        """The whole block on maps (R, M * C, ...) that are not separable by modality."""
        return self.out(self.context(self.mix(joined)))
