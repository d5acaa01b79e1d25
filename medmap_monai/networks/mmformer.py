"""mmFormer: convolutional encoders, a transformer within each modality and one across modalities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.utils import look_up_option
from torch import Tensor, nn

from medmap_monai.networks.base import ModalityNetwork, one_hot_mask
from medmap_monai.networks.blocks.backend import selects_rows
from medmap_monai.networks.blocks.conv_unit import PlainConv
from medmap_monai.networks.blocks.joint_fusion import JointFusion
from medmap_monai.networks.blocks.modality_encoder import ModalityEncoder
from medmap_monai.networks.blocks.slots import needed, pick_modality, sum_modalities
from medmap_monai.networks.blocks.transformer import (
    TransformerLayer,
    grid_sizes,
    resize_positions,
    to_maps,
    to_tokens,
)
from medmap_monai.networks.blocks.unimodal_decoder import MergeUnit, UnimodalDecoder, UpUnit
from medmap_monai.networks.features import DecoderOutput, ModalityFeatures, mask_at, zero_absent

_POSITION_SIZE = {"passion": 5, "passion-published": 5, "original": 8}  # patches of 80 and 128 voxels, total stride 16


class IntraModalTransformer(nn.Module):
    """Tokens of one modality: deepest encoder map -> 1x1 convolution -> transformer within the modality.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the deepest encoder map.
        width: channels of a token.
        layers: number of transformer layers.
        heads: attention heads.
        mlp_width: hidden width of the MLP.
        dropout_rate: dropout of the transformer.
        grid: token grid of the positional embedding.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        dropout_rate: float,
        grid: list[int],
    ) -> None:
        super().__init__()
        self.grid = grid
        self.embed = PlainConv(spatial_dims, in_channels, width)
        self.positions = nn.Parameter(torch.zeros(1, math.prod(grid), width))
        self.layers = nn.ModuleList(TransformerLayer(width, heads, mlp_width, dropout_rate) for _ in range(layers))

    def positions_for(self, size: list[int]) -> Tensor:
        """The positional embedding (1, N, D) of a token grid of ``size``."""
        return resize_positions(self.positions, self.grid, size)

    def forward(self, x: Tensor) -> Tensor:
        size = list(x.shape[2:])
        tokens = to_tokens(self.embed(x))
        positions = self.positions_for(size)
        for layer in self.layers:
            tokens = layer(tokens + positions)  # published: added before every layer
        return to_maps(tokens, size)


class MMFormer(ModalityNetwork):
    """mmFormer for any subset of modalities.

    ``MMFormer()`` is the network of the PASSION release (4 modalities, 4 classes, patches of 80^3, 35,599,184
    parameters), ``MMFormer(variant="original")`` the one of the mmFormer release (patches of 128^3, 36,654,416).
    Everything is returned as logits. Other sizes interpolate the positional embedding.

    Kept as published, because weights depend on it: the tokens after the inter-modal transformer are regrouped so that
    each position receives M consecutive tokens of one modality, and missing modalities take part in attention as zero
    tokens with their position (goldens ``mmformer_fwd80_f32``). Students of modalities that the fused path does not
    see have no tokens (:meth:`decode_student`).

    Source: Zhang et al.: mmFormer: Multimodal Medical Transformer for Incomplete Multimodal Learning of Brain Tumor
    Segmentation, MICCAI 2022.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities M.
        out_channels: number of classes K, background included.
        variant: ``"passion"``, ``"original"``, or ``"passion-published"``: the first with a slip of the published
            training code, where the student of the fourth modality reads the third one's tokens (golden
            ``mmformer_train32``).
        base_width: features of the finest level; level l has ``base_width * 2**l``.
        levels: number of encoder levels; the total stride is ``2**(levels - 1)``.
        token_width: channels of a token, a multiple of ``heads``.
        transformer_layers: layers of each transformer.
        heads: attention heads.
        mlp_width: hidden width of the transformers' MLPs.
        position_size: token grid of the positional embeddings; None takes the variant's (5 or 8 per axis).
        dropout_rate: dropout of the transformers.

    Decoder output: ``deep_logits`` at strides 2, 4, 8, ... (finest first), ``features`` the decoder maps before the
    heads, ``fused`` the fused maps per level.

    Example:
        >>> net = MMFormer(base_width=4, levels=3, token_width=16, heads=2, mlp_width=32)
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
        token_width: int = 512,
        transformer_layers: int = 1,
        heads: int = 8,
        mlp_width: int = 4096,
        position_size: int | Sequence[int] | None = None,
        dropout_rate: float = 0.1,
    ) -> None:
        default_size = look_up_option(variant, _POSITION_SIZE)
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        published_students = variant == "passion-published"
        if published_students and in_channels != 4:
            raise ValueError(f"{variant} repeats a slip of the 4-modality network, got {in_channels} modalities")
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            stride=2 ** (levels - 1),
            encoders=[ModalityEncoder(spatial_dims, base_width, levels, pre_norm=True) for _ in range(in_channels)],
        )
        self.has_unimodal_decoder = True
        self.published_students = published_students
        self.token_width = token_width
        self.position_grid = grid_sizes(default_size if position_size is None else position_size, spatial_dims)
        widths = [base_width * 2**level for level in range(levels - 1, -1, -1)]  # coarse to fine, as they are used
        self.intra = nn.ModuleList(
            IntraModalTransformer(
                spatial_dims,
                widths[0],
                token_width,
                transformer_layers,
                heads,
                mlp_width,
                dropout_rate,
                self.position_grid,
            )
            for _ in range(in_channels)
        )
        self.inter = nn.ModuleList(
            TransformerLayer(token_width, heads, mlp_width, dropout_rate) for _ in range(transformer_layers)
        )
        self.to_maps = PlainConv(spatial_dims, in_channels * token_width, in_channels * widths[0])
        self.deepest_fusion = JointFusion(spatial_dims, in_channels, widths[0], True, "zeros")
        self.fusions = nn.ModuleList(JointFusion(spatial_dims, in_channels, w, True, "zeros") for w in widths[1:])
        self.ups = nn.ModuleList(UpUnit(spatial_dims, 2 * w, w, pre_norm=True) for w in widths[1:])
        self.merges = nn.ModuleList(MergeUnit(spatial_dims, 2 * w, w, pre_norm=True) for w in widths[1:])
        self.deep_heads = nn.ModuleList(PlainConv(spatial_dims, w, out_channels) for w in widths[:-1])
        self.head = PlainConv(spatial_dims, base_width, out_channels)
        self.unimodal_decoder = UnimodalDecoder(spatial_dims, base_width, levels, out_channels, pre_norm=True)
        # in the original state dict, used by nothing there either; frozen, so that no optimiser or DDP waits for them
        unused = in_channels if variant == "original" else 0
        self.unused = nn.ModuleList(PlainConv(spatial_dims, token_width, widths[0]) for _ in range(unused))
        self.unused.requires_grad_(False)

    def encode(self, image: Tensor, present_mask: Tensor | None = None) -> ModalityFeatures:
        features = self.encode_pyramid(image, present_mask)
        mask = features.present
        assert mask is not None  # for the type checkers; the base class always says what is present
        deepest = features.pyramid[-1]
        tokens: list[Tensor] = []
        for m, transformer in enumerate(self.intra):
            if selects_rows(deepest) and not bool(mask[:, m].all()):
                rows = torch.nonzero(mask[:, m]).flatten()
                made = deepest.new_zeros([mask.shape[0], self.token_width] + list(deepest.shape[3:]))
                if rows.shape[0] > 0:
                    made = made.index_copy(0, rows, transformer(deepest[:, m].index_select(0, rows)).to(made.dtype))
                tokens.append(made)
            else:
                tokens.append(transformer(deepest[:, m]))
        return ModalityFeatures(features.pyramid, zero_absent(torch.stack(tokens, dim=1), mask), mask)

    def prepare(self, features: ModalityFeatures, wanted: Tensor | None = None) -> ModalityFeatures:
        """Each modality's part of the fusions above the deepest level."""
        parts = features.parts[:]
        for i, fusion in enumerate(self.fusions):
            level = len(features.pyramid) - 2 - i
            if len(parts[level]) == 0:
                seen = features.present if wanted is None else wanted
                parts[level] = fusion.project(features.pyramid[level], seen)  # type: ignore[operator]
        return features.with_parts(parts)

    def decode_student(
        self, features: ModalityFeatures, sample: Tensor, modality: Tensor, visible: Tensor
    ) -> DecoderOutput:
        """As published, a student's tokens are masked by the sample's mask too, its other levels are not: only with
        perfect-data training, where a hidden modality has a student, does that differ from one modality alone."""
        one_hot = one_hot_mask(modality, self.modalities)
        tokens = one_hot
        if self.published_students:
            tokens = torch.cat([one_hot[:, :2], one_hot[:, 2:3] | one_hot[:, 3:4], torch.zeros_like(one_hot[:, :1])], 1)
        levels = [one_hot] * len(self.merges) + [tokens & visible.index_select(0, sample)]
        return self.decode(features, torch.stack(levels, dim=1), sample)

    def fuse_tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Inter-modal transformer: tokens (R, M, D, ...) under a mask (R, M) -> fused deepest map (R, C, ...)."""
        size = list(tokens.shape[3:])
        x = zero_absent(tokens, mask).flatten(3).transpose(2, 3).flatten(1, 2)  # (R, M * N, D), modality-major
        places: list[Tensor] = []
        for transformer in self.intra:
            places.append(transformer.positions_for(size))  # type: ignore[operator]
        positions = torch.cat(places, dim=1)
        for layer in self.inter:
            x = layer(x + positions)
        # published regrouping: position q gets tokens M*q ... M*q + M-1, which belong to one modality
        x = x.reshape(x.shape[0], -1, self.modalities * x.shape[2])
        return self.deepest_fusion.fuse_joined(self.to_maps(to_maps(x, size)))

    def decode(self, features: ModalityFeatures, modality_mask: Tensor, rows: Tensor | None = None) -> DecoderOutput:
        features = self.prepare(features, needed(modality_mask, rows, features.pyramid[0].shape[0]))
        tokens = features.tokens
        assert tokens is not None, "mmFormer decodes features with tokens"
        if rows is not None:
            tokens = tokens.index_select(0, rows)
        x = self.fuse_tokens(tokens, mask_at(modality_mask, -1))
        fused: list[Tensor] = [x]
        decoded: list[Tensor] = [x]
        deep_logits: list[Tensor] = []
        for i, (deep_head, up, fusion, merge) in enumerate(
            zip(self.deep_heads, self.ups, self.fusions, self.merges)  # noqa: B905 (TorchScript)
        ):
            level = len(features.pyramid) - 2 - i
            deep_logits.append(deep_head(x))
            mixed = sum_modalities(features.parts[level], mask_at(modality_mask, level), rows)
            fused.append(fusion(mixed))
            x = merge(fused[-1], up(x))
            decoded.append(x)
        return DecoderOutput(self.head(x), deep_logits[::-1], decoded[::-1], fused[::-1])

    def decode_unimodal(self, features: ModalityFeatures, sample: Tensor, modality: Tensor) -> Tensor:
        return self.unimodal_decoder([pick_modality(level, sample, modality) for level in features.pyramid])
