"""The encoder that RFNet, mmFormer and M2FTrans share: one modality in, one feature map per level out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medmap_monai.networks.blocks.backend import pad_lone_row, selects_rows
from medmap_monai.networks.blocks.conv_unit import ConvUnit, PlainConv
from medmap_monai.networks.features import zero_absent


class EncoderLevel(nn.Module):
    """``y = c1(x)``, then ``y + c3(c2(y))``; nothing follows the addition. ``c1`` has the stride of the level."""

    def __init__(self, c1: nn.Module, c2: nn.Module, c3: nn.Module) -> None:
        super().__init__()
        self.c1 = c1
        self.c2 = c2
        self.c3 = c3

    def forward(self, x: Tensor) -> Tensor:
        y = self.c1(x)
        return y + self.c3(self.c2(y))


class ModalityEncoder(nn.Module):
    """(B, 1, ...) -> ``levels`` maps, finest first, of width ``base_width * 2**level``, halving from level 1 on.

    Args:
        spatial_dims: 2 or 3.
        base_width: channels of the finest level.
        levels: number of levels.
        pre_norm: norm and activation before each convolution (mmFormer; its very first convolution stands alone).
    """

    def __init__(self, spatial_dims: int, base_width: int, levels: int, pre_norm: bool = False) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        width_in = 1
        for level in range(levels):
            width = base_width * 2**level
            stride = 1 if level == 0 else 2
            if level == 0 and pre_norm:
                first: nn.Module = PlainConv(spatial_dims, width_in, width, 3)
            else:
                first = ConvUnit(spatial_dims, width_in, width, stride=stride, pre_norm=pre_norm)
            second = ConvUnit(spatial_dims, width, width, pre_norm=pre_norm)
            third = ConvUnit(spatial_dims, width, width, pre_norm=pre_norm)
            self.levels.append(EncoderLevel(first, second, third))
            width_in = width

    def forward(self, x: Tensor) -> list[Tensor]:
        rows = x.shape[0]
        x = pad_lone_row(x)
        out: list[Tensor] = []
        for level in self.levels:
            x = level(x)
            out.append(x[:rows])
        return out


def encode_grouped(encoders: Sequence[nn.Module], image: Tensor, mask: Tensor) -> list[Tensor] | None:
    """The encoders of all modalities as one: their weights become the groups of one convolution.

    Norm and activation work per channel, so they serve all modalities at once; in the state dict every encoder keeps
    its own weights. Modalities that no row has are left out where the mask may tell.

    Args:
        encoders: :class:`ModalityEncoder` of one shape each, in channel order.
        image: (B, M, ...).
        mask: bool (B, M).

    Returns:
        maps per level, finest first, (B, M, C_l, ...), zero where the mask is False; None where the encoders are of
        another kind.
    """
    own = [e for e in encoders if isinstance(e, ModalityEncoder)]
    if len(own) != mask.shape[1]:
        return None
    columns = torch.arange(len(own), device=mask.device)
    chosen, x = own, image
    if selects_rows(image) and not bool(mask.any(dim=0).all()):
        columns = torch.nonzero(mask.any(dim=0)).flatten()
        columns = columns if columns.numel() else torch.zeros_like(mask[0, :1], dtype=torch.int64)  # for the shapes
        chosen, x = [own[m] for m in columns.tolist()], image.index_select(1, columns)
    out: list[Tensor] = []
    for levels in zip(*(e.levels for e in chosen), strict=True):
        y = _grouped([level.c1 for level in levels], x)
        x = y + _grouped([level.c3 for level in levels], _grouped([level.c2 for level in levels], y))
        maps = x.unflatten(1, (len(chosen), -1))
        if len(chosen) < len(own):
            empty = maps.new_zeros([maps.shape[0], len(own), *maps.shape[2:]])
            maps = empty.index_copy(1, columns, maps)
        out.append(zero_absent(maps, mask))
    return out


def _grouped(units: list[PlainConv], x: Tensor) -> Tensor:
    """The same unit of every modality on (B, M * C, ...)."""
    weight = torch.cat([u.conv.weight for u in units])
    bias = torch.cat([u.conv.bias for u in units])
    return units[0].run(x, weight, bias, groups=len(units))
