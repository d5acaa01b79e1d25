"""RFNet's decoder parts: probability maps and region-aware modal fusion.

Source: Ding, Yu, Yang: RFNet: Region-aware Fusion Network for Incomplete Multi-modal Brain Tumor Segmentation,
ICCV 2021, in the width that the PASSION release uses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medmap_monai.networks.blocks.conv_unit import ConvUnit, PlainConv
from medmap_monai.networks.blocks.slots import convolve_slots


class SlotConvUnit(ConvUnit):
    """A 1x1x1 post-norm unit over the masked concatenation of the modalities (M * C channels)."""

    def forward(self, slots: Tensor, placement: Tensor) -> Tensor:  # type: ignore[override]
        return self.activate(convolve_slots(slots, placement, self.conv.weight, self.conv.bias), consume=True)


class ProbabilityMap(nn.Module):
    """Coarse segmentation of one level: where each region is likely to be, as logits (R, K, ...).

    Args:
        spatial_dims: 2 or 3.
        modalities: number of modalities M.
        width: channels of one modality's slots.
        out_channels: number of classes K.
        from_above: whether a decoder feature of ``width`` channels from the level above is used too.
        hidden: channels before the class convolution.
    """

    def __init__(
        self, spatial_dims: int, modalities: int, width: int, out_channels: int, from_above: bool, hidden: int = 16
    ) -> None:
        super().__init__()
        narrow = max(1, width // 4)
        self.embed = SlotConvUnit(spatial_dims, modalities * width, narrow, kernel_size=1)
        self.context = ConvUnit(spatial_dims, narrow, narrow)
        self.expand = ConvUnit(spatial_dims, narrow, width, kernel_size=1)
        self.hidden = ConvUnit(spatial_dims, width * (2 if from_above else 1), hidden, kernel_size=1)
        self.head = PlainConv(spatial_dims, hidden, out_channels)

    def forward(self, slots: Tensor, placement: Tensor, above: Tensor | None) -> Tensor:
        x = self.expand(self.context(self.embed(slots, placement)))
        if above is not None:
            x = torch.cat([above, x], dim=1)
        return self.head(self.hidden(x))


class RegionWeights(nn.Module):
    """The weight of each modality in one region: pooled descriptors (R, M * C + 1) -> (R, M), each in (0, 1)."""

    def __init__(self, modalities: int, width: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(modalities * width + 1, hidden)
        self.second = nn.Linear(hidden, modalities)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight)  # 1x1x1 convolutions in the published code, initialised as such

    def forward(self, descriptor: Tensor) -> Tensor:
        return torch.sigmoid(self.second(F.leaky_relu(self.first(descriptor), 0.2)))


def region_descriptors(slots: Tensor, placement: Tensor, probability: Tensor) -> Tensor:
    """Mean of every modality's channels over each region, and the region's size: (R, K, M * C + 1).

    The sums over space are one matrix product; the (classes x modalities x channels) volume of the direct form never
    exists. At least float32 throughout, since a half-precision sum over a volume overflows.
    """
    rows, classes = probability.shape[:2]
    wide = torch.promote_types(slots.dtype, torch.float32)
    p = probability.flatten(2).to(wide)
    y = slots.flatten(3).flatten(1, 2).to(wide)
    placement = placement.to(wide)
    if torch.jit.is_scripting():
        sums = torch.bmm(p, y.transpose(1, 2))
        means = torch.einsum("rcsw,rsm->rcmw", sums.reshape(rows, classes, placement.shape[1], -1), placement)
    else:
        with torch.autocast(device_type=p.device.type, enabled=False):
            sums = torch.bmm(p, y.transpose(1, 2))
            means = torch.einsum("rcsw,rsm->rcmw", sums.reshape(rows, classes, placement.shape[1], -1), placement)
    # published detail: the offset of the division is part of the size that is handed on (golden passion_train32)
    size = p.mean(dim=2) + 1e-7
    means = means.flatten(2) / p.shape[2] / size[:, :, None]
    return torch.cat([means, size[:, :, None]], dim=2)


class RegionFusion(nn.Module):
    """Region-aware modal fusion of one level: (R, S, C, ...) slots and region probabilities -> (R, C, ...).

    Half of the channels come from regions: in each region the modalities are weighted by their pooled descriptors.
    The other half is a plain fusion of the concatenation.

    Args:
        spatial_dims: 2 or 3.
        modalities: number of modalities M.
        width: channels C of one modality's features, even.
        out_channels: number of classes (regions) K.
        hidden: width of the descriptor networks.
    """

    def __init__(self, spatial_dims: int, modalities: int, width: int, out_channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.region_weights = nn.ModuleList(RegionWeights(modalities, width, hidden) for _ in range(out_channels))
        self.region_mix = ConvUnit(spatial_dims, out_channels * width, width, kernel_size=1)
        self.region_context = ConvUnit(spatial_dims, width, width)
        self.region_out = ConvUnit(spatial_dims, width, width // 2, kernel_size=1)
        self.joint_mix = SlotConvUnit(spatial_dims, modalities * width, width, kernel_size=1)
        self.joint_context = ConvUnit(spatial_dims, width, width)
        self.joint_out = ConvUnit(spatial_dims, width, width // 2, kernel_size=1)

    def forward(self, slots: Tensor, placement: Tensor, probability: Tensor) -> Tensor:
        regions = self.region_out(self.region_context(self.mix_regions(slots, placement, probability)))
        joint = self.joint_out(self.joint_context(self.joint_mix(slots, placement)))
        return torch.cat([regions, joint], dim=1)

    def mix_regions(self, slots: Tensor, placement: Tensor, probability: Tensor) -> Tensor:
        """Weighted modalities per region and the 1x1x1 unit over the regions, (R, C, ...).

        sum_c W_c (p_c sum_m w_cm y_m) = sum_c p_c (sum_m w_cm W_c y_m): per region one matrix product with the
        weights folded into W_c, added up without ever building the regions' feature maps.
        """
        rows, width = slots.shape[0], slots.shape[2]
        descriptors = region_descriptors(slots, placement, probability).to(slots.dtype)
        y = slots.flatten(3).flatten(1, 2)  # (R, S * C, N)
        p = probability.flatten(2).to(slots.dtype)  # (R, K, N)
        weight, bias = self.region_mix.conv.weight, self.region_mix.conv.bias
        per_region = weight.reshape(weight.shape[0], -1, width)  # (C_out, K, C)
        mixed = weight.new_zeros(1) if bias is None else bias[:, None]
        for c, region in enumerate(self.region_weights):
            slot_weights = torch.einsum("rm,rsm->rs", region(descriptors[:, c]), placement.to(descriptors.dtype))
            folded = slot_weights[:, None, :, None] * per_region[:, c][None, :, None, :]  # (R, C_out, S, C)
            mixed = torch.addcmul(mixed, torch.bmm(folded.flatten(2), y), p[:, c : c + 1])
        mixed = mixed.reshape([rows, width] + list(slots.shape[3:]))
        return self.region_mix.activate(mixed, consume=True)
