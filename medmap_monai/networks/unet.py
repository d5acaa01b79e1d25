"""ModalityUNet: one encoder per modality, masked fusion at every level, one decoder; built from MONAI blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.blocks import Convolution, ResidualUnit, UpSample
from monai.networks.layers.factories import split_args
from monai.utils import look_up_option
from torch import Tensor, nn

from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.blocks.backend import pad_lone_row
from medmap_monai.networks.blocks.dmaf import DMAFFusion
from medmap_monai.networks.blocks.fusion import ConcatFusion
from medmap_monai.networks.blocks.plain_instance_norm import PLAIN_INSTANCE
from medmap_monai.networks.features import DecoderOutput, ModalityFeatures, mask_at

_ACT = ("leakyrelu", {"negative_slope": 0.1})


class UNetEncoder(nn.Module):
    """Residual encoder: (B, in_channels, ...) -> features with ``channels``, finest first."""

    def __init__(
        self, spatial_dims: int, channels: Sequence[int], strides: Sequence[int], in_channels: int = 1
    ) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        self.levels = nn.ModuleList(
            ResidualUnit(
                spatial_dims,
                widths[i],
                widths[i + 1],
                strides=strides[i],
                subunits=2,
                act=_ACT,
                norm=PLAIN_INSTANCE,
            )
            for i in range(len(channels))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        rows = x.shape[0]
        x = pad_lone_row(x)
        out: list[Tensor] = []
        for level in self.levels:
            x = level(x)
            out.append(x[:rows])
        return out


class UpBlock(nn.Module):
    """Up-sample by two, concatenate the skip, convolve."""

    def __init__(self, spatial_dims: int, in_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.reduce = Convolution(spatial_dims, in_channels, skip_channels, act=_ACT, norm=PLAIN_INSTANCE)
        self.up = UpSample(
            spatial_dims, skip_channels, scale_factor=2, mode="nontrainable", interp_mode="nearest", align_corners=None
        )
        self.merge = Convolution(spatial_dims, 2 * skip_channels, skip_channels, act=_ACT, norm=PLAIN_INSTANCE)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.merge(torch.cat([self.up(self.reduce(x)), skip], dim=1))


class UNetDecoder(nn.Module):
    """Up-sampling path with logit heads: fused features per level, finest first -> :class:`DecoderOutput`.

    Args:
        spatial_dims: 2 or 3.
        channels: features per level, finest first; at least two levels.
        out_channels: number of classes K.
        deep_supervision: number of levels below full resolution that get a logit head, at most ``len(channels) - 2``.

    Raises:
        ValueError: when ``channels`` or ``deep_supervision`` is outside its range.
    """

    def __init__(self, spatial_dims: int, channels: Sequence[int], out_channels: int, deep_supervision: int) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"channels needs at least two levels, got {list(channels)}")
        if not 0 <= deep_supervision <= len(channels) - 2:
            raise ValueError(f"deep_supervision must lie in 0..{len(channels) - 2}, got {deep_supervision}")
        coarse_to_fine = list(reversed(channels))
        self.up_blocks = nn.ModuleList(
            UpBlock(spatial_dims, coarse_to_fine[i], coarse_to_fine[i + 1]) for i in range(len(channels) - 1)
        )
        self.head = Convolution(spatial_dims, channels[0], out_channels, kernel_size=1, conv_only=True)
        self.deep_heads = nn.ModuleList(
            Convolution(spatial_dims, channels[level], out_channels, kernel_size=1, conv_only=True)
            for level in range(1, deep_supervision + 1)
        )

    def forward(self, fused: list[Tensor]) -> DecoderOutput:
        x = fused[-1]
        batch = x.shape[0]
        coarse_to_fine: list[Tensor] = []
        for i, up_block in enumerate(self.up_blocks):
            skip = fused[len(fused) - 2 - i]
            x = up_block(pad_lone_row(x, skip), pad_lone_row(skip))[:batch]
            coarse_to_fine.append(x)
        decoded: list[Tensor] = []
        for i in range(len(coarse_to_fine)):
            decoded.append(coarse_to_fine[len(coarse_to_fine) - 1 - i])
        deep_logits: list[Tensor] = []
        for i, head in enumerate(self.deep_heads):
            deep_logits.append(head(decoded[i + 1]))
        return DecoderOutput(self.head(decoded[0]), deep_logits, decoded, fused)


def _fusions(
    fusion: str | tuple[str, Mapping[str, Any]] | Sequence[Any],
    spatial_dims: int,
    modalities: int,
    channels: Sequence[int],
) -> list[nn.Module]:
    """One fusion block per level, from one specification for all levels or a list with one for each."""
    everywhere = isinstance(fusion, str) or (len(fusion) == 2 and isinstance(fusion[1], Mapping))
    per_level = [fusion] * len(channels) if everywhere else list(fusion)
    if len(per_level) != len(channels):
        raise ValueError(f"fusion needs one entry or one for each of {len(channels)} levels, got {len(per_level)}")
    blocks: list[nn.Module] = []
    for level, (specification, width) in enumerate(zip(per_level, channels, strict=True)):
        name, options = split_args(specification)
        if look_up_option(name, ("concat", "dmaf")) == "dmaf":
            # sub-voxels: as many times finer than the tokens as this level is finer than the deepest one
            scale = {"scale": 2 ** (len(channels) - 1 - level)}
            blocks.append(DMAFFusion(spatial_dims, modalities, width, **{**scale, **options}))
        else:
            blocks.append(ConcatFusion(spatial_dims, modalities, width, width, **options))
    return blocks


class ModalityUNet(ModalityNetwork):
    """U-Net for any subset of modalities.

    Every modality has its own residual encoder; at each level the available modalities are fused, by default by a
    masked concatenation and a 1x1 convolution; one decoder with deep supervision gives the logits. Source: ours.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities M.
        out_channels: number of classes K, background included.
        channels: features per level, finest first; every level after the first halves the resolution.
        deep_supervision: number of decoder levels below full resolution that get a logit head (at most
            ``len(channels) - 2``).
        fusion: how modalities are fused: ``"concat"`` (:class:`ConcatFusion`) or ``"dmaf"`` (:class:`DMAFFusion`);
            with options as ``("dmaf", {"depth": 2})``; or a list with one such entry per level, finest first.

    Example:
        >>> net = ModalityUNet(spatial_dims=3, in_channels=4, out_channels=4, channels=(8, 16, 32, 64))
        >>> net(torch.rand(2, 4, 32, 32, 32)).shape
        torch.Size([2, 4, 32, 32, 32])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        deep_supervision: int = 2,
        fusion: str | tuple[str, Mapping[str, Any]] | Sequence[Any] = "concat",
    ) -> None:
        strides = [1] + [2] * (len(channels) - 1)
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            stride=2 ** (len(channels) - 1),
            encoders=(UNetEncoder(spatial_dims, channels, strides) for _ in range(in_channels)),
        )
        self.fusions = nn.ModuleList(_fusions(fusion, spatial_dims, in_channels, channels))
        self.decoder = UNetDecoder(spatial_dims, channels, out_channels, deep_supervision)

    def prepare(self, features: ModalityFeatures, wanted: Tensor | None = None) -> ModalityFeatures:
        parts: list[list[Tensor]] = []
        for level, fusion in enumerate(self.fusions):
            made = features.parts[level]
            if len(made) == 0:
                made = [fusion.project(features.pyramid[level])]  # type: ignore[operator]
            parts.append(made)
        return features.with_parts(parts)

    def decode(self, features: ModalityFeatures, modality_mask: Tensor, rows: Tensor | None = None) -> DecoderOutput:
        features = self.prepare(features)
        if rows is not None:
            features = features.rows(rows)
        fused: list[Tensor] = []
        for level, fusion in enumerate(self.fusions):
            fused.append(
                fusion(
                    projected=features.parts[level][0],
                    mask=mask_at(modality_mask, level),
                    features=features.pyramid[level],
                )
            )
        return self.decoder(fused)
