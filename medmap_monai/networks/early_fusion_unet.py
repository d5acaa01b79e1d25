"""EarlyFusionUNet: a shallow embedding per modality, then one U-Net over their concatenation."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.blocks import Convolution
from torch import Tensor, nn

from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.blocks.backend import pad_lone_row
from medmap_monai.networks.blocks.fusion import ConcatFusion
from medmap_monai.networks.blocks.plain_instance_norm import PLAIN_INSTANCE
from medmap_monai.networks.features import DecoderOutput, ModalityFeatures, mask_at
from medmap_monai.networks.unet import UNetDecoder, UNetEncoder


class ModalityEmbedding(nn.Module):
    """One convolution with norm and activation: (B, 1, ...) -> one map (B, C, ...) at full resolution."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.convolution = Convolution(
            spatial_dims,
            1,
            channels,
            act=("leakyrelu", {"negative_slope": 0.1}),
            norm=PLAIN_INSTANCE,
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.convolution(pad_lone_row(x))[: x.shape[0]]]


class EarlyFusionUNet(ModalityNetwork):
    """Early-fusion U-Net for any subset of modalities: the block of knowledge distillation and domain adaptation.

    ``encode`` embeds each modality with one convolution (the pyramid has a single level), ``decode`` runs a residual
    U-Net over the masked concatenation. Nearly all work is in ``decode``, so the all-subset sweep gains little here.
    Source: the published figures name a 3-D U-Net for these two families and an early draft puts a shallow embedding
    before it; the sizes are ours.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities M.
        out_channels: number of classes K, background included.
        channels: features per U-Net level, finest first; every level after the first halves the resolution.
        embedding_channels: channels of one modality's embedding.
        deep_supervision: number of decoder levels below full resolution that get a logit head (at most
            ``len(channels) - 2``).

    Raises:
        ValueError: when an argument is outside its range.

    Example:
        >>> net = EarlyFusionUNet(spatial_dims=3, in_channels=4, out_channels=4, channels=(8, 16, 32, 64))
        >>> net(torch.rand(2, 4, 32, 32, 32)).shape
        torch.Size([2, 4, 32, 32, 32])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        embedding_channels: int = 4,
        deep_supervision: int = 2,
    ) -> None:
        if embedding_channels < 1:
            raise ValueError(f"embedding_channels must be at least 1, got {embedding_channels}")
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            stride=2 ** (len(channels) - 1),
            encoders=[ModalityEmbedding(spatial_dims, embedding_channels) for _ in range(in_channels)],
        )
        self.fusion = ConcatFusion(spatial_dims, in_channels, embedding_channels, channels[0])
        self.encoder = UNetEncoder(spatial_dims, channels, [1] + [2] * (len(channels) - 1), in_channels=channels[0])
        self.decoder = UNetDecoder(spatial_dims, channels, out_channels, deep_supervision)

    def prepare(self, features: ModalityFeatures, wanted: Tensor | None = None) -> ModalityFeatures:
        if len(features.parts[0]) > 0:
            return features
        return features.with_parts([[self.fusion.project(features.pyramid[0])]])

    def decode(self, features: ModalityFeatures, modality_mask: Tensor, rows: Tensor | None = None) -> DecoderOutput:
        features = self.prepare(features)
        if rows is not None:
            features = features.rows(rows)
        return self.decoder(self.encoder(self.fusion(features.parts[0][0], mask_at(modality_mask, 0))))
