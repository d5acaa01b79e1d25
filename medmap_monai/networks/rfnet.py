"""RFNet: one encoder per modality and region-aware fusion of whatever modalities are available."""

from __future__ import annotations

import torch
from monai.utils import look_up_option
from torch import Tensor, nn

from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.blocks.conv_unit import PlainConv
from medmap_monai.networks.blocks.modality_encoder import ModalityEncoder
from medmap_monai.networks.blocks.region_fusion import ProbabilityMap, RegionFusion
from medmap_monai.networks.blocks.slots import pick_modality, select_modalities
from medmap_monai.networks.blocks.unimodal_decoder import MergeUnit, UnimodalDecoder, UpUnit
from medmap_monai.networks.features import DecoderOutput, ModalityFeatures, mask_at

_BASE_WIDTH = {"passion": 8, "original": 16}


class RFNet(ModalityNetwork):
    """RFNet for any subset of modalities.

    ``RFNet()`` is the network of the PASSION release (4 modalities, 4 classes, 2,381,792 parameters),
    ``RFNet(variant="original")`` the one of the RFNet release (8,984,960); published weights of the former load with
    :func:`medmap_monai.checkpoints.published.load_published_weights`. Everything is returned as logits.

    Source: Ding, Yu, Yang: RFNet: Region-aware Fusion Network for Incomplete Multi-modal Brain Tumor Segmentation,
    ICCV 2021.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities M.
        out_channels: number of classes K, background included.
        variant: ``"passion"`` (base width 8) or ``"original"`` (base width 16).
        base_width: features of the finest level, an even number; level l has ``base_width * 2**l``. None takes the
            variant's.
        levels: number of levels; the total stride is ``2**(levels - 1)``.
        mlp_width: hidden width of the networks that weight the modalities of a region.

    Decoder output: ``deep_logits`` are the probability maps of all levels, ``features`` the map before the class
    convolution and then the up-sampled maps that enter levels 0, 1, ..., ``fused`` the fused maps per level.

    Example:
        >>> import torch
        >>> net = RFNet(base_width=4)
        >>> net(torch.rand(1, 4, 16, 16, 16), torch.tensor([[True, False, True, False]])).shape
        torch.Size([1, 4, 16, 16, 16])
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 4,
        out_channels: int = 4,
        variant: str = "passion",
        base_width: int | None = None,
        levels: int = 4,
        mlp_width: int = 128,
    ) -> None:
        if base_width is None:
            base_width = look_up_option(variant, _BASE_WIDTH)
        look_up_option(variant, _BASE_WIDTH)
        if base_width < 2 or base_width % 2:
            raise ValueError(f"base_width must be even and at least 2, got {base_width}")
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            stride=2 ** (levels - 1),
            encoders=[ModalityEncoder(spatial_dims, base_width, levels) for _ in range(in_channels)],
        )
        self.has_unimodal_decoder = True
        widths = [base_width * 2**level for level in range(levels - 1, -1, -1)]  # coarse to fine, as they are used
        self.deepest_map = ProbabilityMap(spatial_dims, in_channels, widths[0], out_channels, from_above=False)
        self.deepest_fusion = RegionFusion(spatial_dims, in_channels, widths[0], out_channels, mlp_width)
        self.maps = nn.ModuleList(
            ProbabilityMap(spatial_dims, in_channels, w, out_channels, from_above=True) for w in widths[1:]
        )
        self.fusions = nn.ModuleList(
            RegionFusion(spatial_dims, in_channels, w, out_channels, mlp_width) for w in widths[1:]
        )
        self.ups = nn.ModuleList(UpUnit(spatial_dims, 2 * w, w) for w in widths[1:])
        self.merges = nn.ModuleList(MergeUnit(spatial_dims, 2 * w, w) for w in widths[1:])
        self.head = PlainConv(spatial_dims, base_width, out_channels)
        self.unimodal_decoder = UnimodalDecoder(spatial_dims, base_width, levels, out_channels)

    def decode(self, features: ModalityFeatures, modality_mask: Tensor, rows: Tensor | None = None) -> DecoderOutput:
        deepest = len(features.pyramid) - 1
        slots: list[Tensor] = []
        places: list[Tensor] = []
        for i in range(deepest + 1):
            level = deepest - i
            mask = mask_at(modality_mask, level)
            chosen, placement = select_modalities(features.pyramid[level], mask, features.present, rows)
            slots.append(chosen)
            places.append(placement)
        # published detail: probability maps learn from their own loss only, hence the detach (goldens *_train32)
        logits = self.deepest_map(slots[0], places[0], None)
        x = self.deepest_fusion(slots[0], places[0], torch.softmax(logits.detach(), dim=1))
        deep_logits: list[Tensor] = [logits]
        fused: list[Tensor] = [x]
        entering: list[Tensor] = []
        for i, (up, probability_map, fusion, merge) in enumerate(
            zip(self.ups, self.maps, self.fusions, self.merges)  # noqa: B905 (TorchScript)
        ):
            above = up(x)
            logits = probability_map(slots[i + 1], places[i + 1], above)
            region = fusion(slots[i + 1], places[i + 1], torch.softmax(logits.detach(), dim=1))
            x = merge(region, above)
            deep_logits.append(logits)
            fused.append(region)
            entering.append(above)
        decoded: list[Tensor] = [x]
        for i in range(len(entering)):
            decoded.append(entering[len(entering) - 1 - i])
        return DecoderOutput(self.head(x), deep_logits[::-1], decoded, fused[::-1])

    def decode_unimodal(self, features: ModalityFeatures, sample: Tensor, modality: Tensor) -> Tensor:
        return self.unimodal_decoder([pick_modality(level, sample, modality) for level in features.pyramid])
