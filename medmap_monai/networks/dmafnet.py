"""DMAFNet: a U-Net whose modalities are fused by masked attention at every level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from medmap_monai.networks.blocks.slots import pick_modality
from medmap_monai.networks.features import ModalityFeatures
from medmap_monai.networks.unet import ModalityUNet, UNetDecoder


class DMAFNet(ModalityUNet):
    """DMAF-Net: one encoder per modality, a DMAF module at each level, a fusion decoder and a shared decoder.

    The fusion decoder segments from the fused features of any subset; the shared decoder, used in training only
    (:meth:`decode_unimodal`), from one modality. Encoders and decoders are those of :class:`ModalityUNet`, so that
    differences between the two networks come from the fusion. Source: reconstruction from DMAF-Net's figures; see
    ``docs/explanation/dmafnet.md``.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities M.
        out_channels: number of classes K, background included.
        channels: features per level, finest first; every level after the first halves the resolution. Where a level
            has a DMAF module its attention heads must divide them.
        deep_supervision: number of decoder levels below full resolution that get a logit head (at most
            ``len(channels) - 2``).
        dmaf_levels: levels with a DMAF module, 0 = finest, negative ones count from the deepest; the others fuse by
            a masked concatenation and a 1x1 convolution. None means all levels.
        dmaf: options of :class:`~medmap_monai.networks.blocks.dmaf.DMAFFusion`, such as ``{"depth": 2}``.

    Raises:
        ValueError: when an argument is outside its range.

    Example:
        >>> net = DMAFNet(spatial_dims=3, in_channels=4, out_channels=4, channels=(8, 16, 32), deep_supervision=1)
        >>> net(torch.rand(2, 4, 16, 16, 16)).shape
        torch.Size([2, 4, 16, 16, 16])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (8, 16, 32, 64, 128),
        deep_supervision: int = 3,
        dmaf_levels: Sequence[int] | None = None,
        dmaf: Mapping[str, Any] | None = None,
    ) -> None:
        depth = len(channels)
        levels = range(depth) if dmaf_levels is None else dmaf_levels
        unknown = [level for level in levels if not -depth <= level < depth]
        if unknown:
            raise ValueError(f"dmaf_levels {unknown} do not exist: the network has levels 0..{depth - 1}")
        chosen = {level % depth for level in levels}
        fusion = [("dmaf", dict(dmaf or {})) if level in chosen else "concat" for level in range(depth)]
        super().__init__(spatial_dims, in_channels, out_channels, channels, deep_supervision, fusion)
        self.has_unimodal_decoder = True
        self.shared_decoder = UNetDecoder(spatial_dims, channels, out_channels, deep_supervision=0)

    def decode_unimodal(self, features: ModalityFeatures, sample: Tensor, modality: Tensor) -> Tensor:
        logits: Tensor = self.shared_decoder([pick_modality(level, sample, modality) for level in features.pyramid])[0]
        return logits
