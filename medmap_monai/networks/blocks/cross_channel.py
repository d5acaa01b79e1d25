"""M2FTrans's cross-modal attention between channels: a query map gathers from the maps of the available modalities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medmap_monai.networks.blocks.backend import selects_rows
from medmap_monai.networks.blocks.conv_unit import PlainConv
from medmap_monai.networks.features import zero_absent


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map (R, C, ...), one position at a time."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.movedim(-1, 1)


class BottleneckConv(nn.Module):
    """1x1, grouped 3x3 (zero padding), 1x1 convolution, each with a channel norm; exact GELU after the first two.

    Args:
        spatial_dims: 2 or 3.
        width: channels in and out, and the number of groups.
        expansion: inner channels per outer one.
    """

    def __init__(self, spatial_dims: int, width: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.conv1 = PlainConv(spatial_dims, width, inner)
        self.norm1 = ChannelNorm(inner, eps=1e-6)
        self.conv2 = PlainConv(spatial_dims, inner, inner, 3, padding_mode="zeros", groups=width)
        self.norm2 = ChannelNorm(inner, eps=1e-6)
        self.conv3 = PlainConv(spatial_dims, inner, width)
        self.norm3 = ChannelNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.conv1(x)))
        x = F.gelu(self.norm2(self.conv2(x)))
        return self.norm3(self.conv3(x))


class ConvFeedForward(BottleneckConv):
    """``gelu(x + bottleneck(x))`` with four times the channels inside."""

    def __init__(self, spatial_dims: int, width: int) -> None:
        super().__init__(spatial_dims, width, expansion=4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.norm1(self.conv1(x)))
        y = F.gelu(self.norm2(self.conv2(y)))
        return F.gelu(x + self.norm3(self.conv3(y)))


class CrossChannelLayer(nn.Module):
    """One layer: attention of the query's channels to all modalities' channels, then feed-forward.

    Args:
        spatial_dims: 2 or 3.
        modalities: number of modalities M.
        width: channels C.
        dropout_rate: dropout of the attention's result.
        updates_maps: whether the modality maps go through a feed-forward as well, for the next layer.
    """

    def __init__(self, spatial_dims: int, modalities: int, width: int, dropout_rate: float, updates_maps: bool) -> None:
        super().__init__()
        self.query_map = BottleneckConv(spatial_dims, width, 1)
        self.key_maps = nn.ModuleList(BottleneckConv(spatial_dims, width, 1) for _ in range(modalities))
        self.value_maps = nn.ModuleList(BottleneckConv(spatial_dims, width, 1) for _ in range(modalities))
        self.out_project = BottleneckConv(spatial_dims, width, 1)
        self.drop = nn.Dropout(dropout_rate)
        self.query_ffn = ConvFeedForward(spatial_dims, width)
        self.updates_maps = updates_maps
        self.map_ffn = ConvFeedForward(spatial_dims, width) if updates_maps else nn.Identity()

    def attend(self, query: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
        """(R, C, ...), (R, M, C, ...) and a bool mask (R, M) -> (R, C, ...)."""
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for m, (key_map, value_map) in enumerate(zip(self.key_maps, self.value_maps)):  # noqa: B905 (TorchScript)
            if selects_rows(maps) and not bool(mask[:, m].all()):
                rows = torch.nonzero(mask[:, m]).flatten()
                key = torch.zeros_like(maps[:, m].flatten(2))
                value = key
                if rows.shape[0] > 0:
                    seen = maps[:, m].index_select(0, rows)
                    made = key_map(seen).flatten(2)
                    key = key.to(made.dtype).index_copy(0, rows, made)
                    value = value.to(made.dtype).index_copy(0, rows, value_map(seen).flatten(2))
                keys.append(key)
                values.append(value)
            else:
                keys.append(key_map(maps[:, m]).flatten(2))
                values.append(value_map(maps[:, m]).flatten(2))
        q = self.query_map(query).flatten(2)
        # a row without any modality attends to zeros instead of dividing by zero
        allowed = (mask | ~mask.any(dim=1, keepdim=True)).repeat_interleave(query.shape[1], dim=1)
        k, v = torch.cat(keys, dim=1).to(q.dtype), torch.cat(values, dim=1).to(q.dtype)
        # SDPA scales by the square root of the last axis: here the number of positions, as published
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], attn_mask=allowed[:, None, None])
        return self.drop(self.out_project(y[:, 0].reshape(query.shape)))

    def forward(self, query: Tensor, maps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        query = self.query_ffn(query + self.attend(query, maps, mask))
        if self.updates_maps and not selects_rows(maps):
            maps = zero_absent(self.map_ffn(maps.flatten(0, 1)).reshape(maps.shape), mask)
        elif self.updates_maps:
            flat = maps.flatten(0, 1)
            rows = torch.nonzero(mask.flatten()).flatten()
            if rows.shape[0] > 0:
                made = self.map_ffn(flat.index_select(0, rows))
                flat = torch.zeros_like(flat).to(made.dtype).index_copy(0, rows, made)
            maps = flat.reshape(maps.shape)
        return query, maps


class CrossChannelFusion(nn.Module):
    """Two layers of :class:`CrossChannelLayer`: query (R, C, ...), maps (R, M, C, ...), mask (R, M) -> (R, C, ...).

    Args:
        spatial_dims: 2 or 3.
        modalities: number of modalities M.
        width: channels C.
        dropout_rate: dropout of the attention's result.
        layers: number of layers; all but the last also update the modality maps.
    """

    def __init__(
        self, spatial_dims: int, modalities: int, width: int, dropout_rate: float = 0.1, layers: int = 2
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossChannelLayer(spatial_dims, modalities, width, dropout_rate, updates_maps=i + 1 < layers)
            for i in range(layers)
        )

    def forward(self, query: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
        maps = zero_absent(maps, mask)
        for layer in self.layers:
            query, maps = layer(query, maps, mask)
        return query
