"""M2FTrans: convolutional encoders, fusion tokens in a masked transformer, and attention between channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.utils import look_up_option
from torch import Tensor, nn

from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.blocks.conv_unit import ConvUnit, PlainConv
from medmap_monai.networks.blocks.cross_channel import CrossChannelFusion
from medmap_monai.networks.blocks.fusion_tokens import FusionTokenTransformer
from medmap_monai.networks.blocks.joint_fusion import JointFusion
from medmap_monai.networks.blocks.modality_encoder import ModalityEncoder
from medmap_monai.networks.blocks.slots import needed, pick_modality, sum_modalities
from medmap_monai.networks.blocks.transformer import grid_sizes
from medmap_monai.networks.blocks.unimodal_decoder import MergeUnit, UnimodalDecoder, UpUnit
from medmap_monai.networks.features import DecoderOutput, ModalityFeatures, mask_at


class DeepHead(nn.Module):
    """Deep-supervision logits: a 1x1x1 unit and a 1x1x1 convolution."""

    def __init__(self, spatial_dims: int, width: int, out_channels: int, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = ConvUnit(spatial_dims, width, hidden, kernel_size=1)
        self.head = PlainConv(spatial_dims, hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x))


class CrossStage(nn.Module):
    """One of the two deepest decoder levels: deep-supervision head, attention between channels, merge."""

    def __init__(self, spatial_dims: int, modalities: int, width: int, out_channels: int, dropout_rate: float) -> None:
        super().__init__()
        self.deep_head = DeepHead(spatial_dims, width, out_channels)
        self.cross = CrossChannelFusion(spatial_dims, modalities, width, dropout_rate)
        self.merge = MergeUnit(spatial_dims, 2 * width, width)

    def forward(self, x: Tensor, maps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map from above (R, C, ...) and weighted maps (R, M, C, ...) -> merged map, deep logits, fused map."""
        fused = self.cross(x, maps, mask)
        return self.merge(fused, x), self.deep_head(x), fused


class M2FTrans(ModalityNetwork):
    """M2FTrans for any subset of modalities.

    ``M2FTrans()`` is the network of the PASSION release (4 modalities, 4 classes, patches of 80^3, 13,194,788
    parameters). Everything is returned as logits. Other sizes interpolate positional embedding and fusion tokens.

    Source: Shi et al.: M2FTrans: Modality-Masked Fusion Transformer for Incomplete Multi-Modality Brain Tumor
    Segmentation, IEEE JBHI 2024, in the version of the PASSION release.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities M.
        out_channels: number of classes K, background included.
        variant: ``"passion"``, the only one.
        base_width: features of the finest level; level l has ``base_width * 2**l``.
        levels: number of encoder levels, at least 3; the total stride is ``2**(levels - 1)``.
        transformer_layers: layers of the masked transformer.
        heads: attention heads; they divide the width of the deepest level.
        mlp_width: hidden width of the transformer's MLPs.
        position_size: token grid of the positional embedding and of the fusion tokens.
        dropout_rate: dropout of the transformer and of the attention between channels.

    Decoder output: ``deep_logits`` of all levels (finest first, full resolution included), ``features`` the map before
    the class convolution and then the up-sampled maps that enter levels 0, 1, ..., ``fused`` the fused maps per level.

    In training a modality's tokens go through the transformer once for all rows that see them, so a student shares
    the dropout of its teacher's tokens (the published code draws anew).

    Example:
        >>> net = M2FTrans(base_width=4, levels=3, heads=2, mlp_width=32)
        >>> net(torch.rand(1, 4, 16, 16, 16)).shape
        torch.Size([1, 4, 16, 16, 16])
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 4,
        out_channels: int = 4,
        variant: str = "passion",
        base_width: int = 8,
        levels: int = 5,
        transformer_layers: int = 3,
        heads: int = 8,
        mlp_width: int = 4096,
        position_size: int | Sequence[int] = 5,
        dropout_rate: float = 0.1,
    ) -> None:
        look_up_option(variant, ("passion",))
        if levels < 3:
            raise ValueError(f"levels must be at least 3, got {levels}")
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            stride=2 ** (levels - 1),
            encoders=[ModalityEncoder(spatial_dims, base_width, levels) for _ in range(in_channels)],
        )
        self.has_unimodal_decoder = True
        widths = [base_width * 2**level for level in range(levels - 1, -1, -1)]  # coarse to fine, as they are used
        grid = grid_sizes(position_size, spatial_dims)
        self.bottleneck = FusionTokenTransformer(
            in_channels, widths[0], transformer_layers, heads, mlp_width, dropout_rate, grid
        )
        self.deepest = CrossStage(spatial_dims, in_channels, widths[0], out_channels, dropout_rate)
        self.second_up = UpUnit(spatial_dims, widths[0], widths[1])
        self.second = CrossStage(spatial_dims, in_channels, widths[1], out_channels, dropout_rate)
        self.ups = nn.ModuleList(UpUnit(spatial_dims, 2 * w, w) for w in widths[2:])
        self.deep_heads = nn.ModuleList(DeepHead(spatial_dims, w, out_channels) for w in widths[2:])
        self.fusions = nn.ModuleList(JointFusion(spatial_dims, in_channels, w, False, "reflect") for w in widths[2:])
        self.merges = nn.ModuleList(MergeUnit(spatial_dims, 2 * w, w) for w in widths[2:])
        self.head = PlainConv(spatial_dims, base_width, out_channels)
        self.unimodal_decoder = UnimodalDecoder(spatial_dims, base_width, levels, out_channels)

    def prepare(self, features: ModalityFeatures, wanted: Tensor | None = None) -> ModalityFeatures:
        """Each modality's part of the joint fusions, and what the bottleneck prepares at the deepest level."""
        parts = features.parts[:]
        seen = features.present if wanted is None else wanted
        for i, fusion in enumerate(self.fusions):
            level = len(features.pyramid) - 3 - i
            if len(parts[level]) == 0:
                made: list[Tensor] = fusion.project(features.pyramid[level], seen)  # type: ignore[operator]
                # positions are weighted one by one later on, which is fast with the channels outermost
                parts[level] = [part.contiguous() for part in made]
        if len(parts[-1]) == 0:
            parts[-1] = self.bottleneck.prepare(features.pyramid[-1], seen)
        return features.with_parts(parts)

    def decode(self, features: ModalityFeatures, modality_mask: Tensor, rows: Tensor | None = None) -> DecoderOutput:
        features = self.prepare(features, needed(modality_mask, rows, features.pyramid[0].shape[0]))
        deepest = len(features.pyramid) - 1
        chosen = torch.arange(modality_mask.shape[0], device=modality_mask.device) if rows is None else rows
        prepared = features.parts[deepest]
        x, attention = self.bottleneck(prepared, mask_at(modality_mask, -1), chosen)
        attention = self.spread(attention, mask_at(modality_mask, -1))
        maps = prepared[0].index_select(0, chosen) * attention
        x, logits, joined = self.deepest(x, maps, mask_at(modality_mask, -1))
        deep_logits: list[Tensor] = [logits]
        fused: list[Tensor] = [joined]

        above = self.second_up(x)
        attention = self.finer(attention)
        maps = features.pyramid[deepest - 1].index_select(0, chosen) * attention
        x, logits, joined = self.second(above, maps, mask_at(modality_mask, -2))
        deep_logits.append(logits)
        fused.append(joined)
        entering: list[Tensor] = [above]

        for i, (up, deep_head, fusion, merge) in enumerate(
            zip(self.ups, self.deep_heads, self.fusions, self.merges)  # noqa: B905 (TorchScript)
        ):
            level = deepest - 2 - i
            above = up(x)
            attention = self.finer(attention)
            mask = mask_at(modality_mask, level)
            joined = fusion(sum_modalities(features.parts[level], mask, rows, attention))
            x = merge(joined, above)
            deep_logits.append(deep_head(above))
            fused.append(joined)
            entering.append(above)
        return DecoderOutput(self.head(x), deep_logits[::-1], [x] + entering[::-1], fused[::-1])

    def spread(self, attention: Tensor, mask: Tensor) -> Tensor:
        """Attention (R, M, 1, ...) with the mean of the available modalities in place of the others: a modality that
        was filled in at other levels only has no tokens. Where none was filled in, masks make it irrelevant."""
        shape = list(mask.shape) + [1] * (attention.ndim - 2)
        mean = attention.sum(dim=1, keepdim=True) / mask.reshape(shape).sum(dim=1, keepdim=True).clamp(min=1)
        return torch.where(mask.reshape(shape), attention, mean)

    def finer(self, attention: Tensor) -> Tensor:
        """Attention (R, M, 1, ...) at twice the resolution, each value repeated."""
        return F.interpolate(attention.flatten(0, 1), scale_factor=2.0, mode="nearest").unflatten(
            0, [-1, self.modalities]
        )

    def decode_unimodal(self, features: ModalityFeatures, sample: Tensor, modality: Tensor) -> Tensor:
        return self.unimodal_decoder([pick_modality(level, sample, modality) for level in features.pyramid])
