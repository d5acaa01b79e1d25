"""DMAF: fuse per-modality features by masked attention between modalities, for any subset of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv
from monai.networks.utils import pixelshuffle
from monai.utils import ensure_tuple_rep, look_up_option
from torch import Tensor, nn
from torch.nn.functional import interpolate, softplus

from medmap_monai.networks.blocks.backend import selects_rows
from medmap_monai.networks.blocks.transformer import TransformerLayer
from medmap_monai.networks.features import zero_absent


def area_pool(x: Tensor, grid: list[int]) -> Tensor:
    """Adaptive average pooling of the last ``len(grid)`` axes, for any leading axes; the same numbers as PyTorch's.

    Averaging over boxes separates into one small matrix per axis. PyTorch's own 3-D operator has no ONNX form.
    """
    for i in range(len(grid)):
        axis = x.ndim - 1 - i
        size, cells = x.shape[axis], grid[len(grid) - 1 - i]
        cell = torch.arange(cells, device=x.device)
        voxel = torch.arange(size, device=x.device).unsqueeze(1)
        first = torch.div(cell * size, cells, rounding_mode="floor")
        after = torch.div((cell + 1) * size + cells - 1, cells, rounding_mode="floor")
        inside = torch.logical_and(voxel >= first, voxel < after)
        mean = inside.to(x.dtype) / (after - first).to(x.dtype)
        x = torch.matmul(x.transpose(axis, -1), mean).transpose(axis, -1)
    return x


class DMAFFusion(nn.Module):
    """Dynamic modality-aware fusion: a weighted sum of the modalities with attention weights per voxel.

    Each available modality is pooled to a few tokens, all tokens attend to each other, the result is brought back to
    the feature's resolution and becomes, through a softmax over the available modalities, the weight of every modality
    at every voxel: ``f = sum_m weight_m * e_m``.

    The weights of a row sum to one; an absent modality has weight exactly zero and no influence, whatever its
    features hold (NaN included); a single modality gives back its features exactly; a row without any gives zeros.
    Permuting the modalities together with ``modality_embedding`` changes nothing.

    Source: reconstruction from the published DMAF-Net figures; see ``docs/explanation/dmafnet.md``.

    Args:
        spatial_dims: 2 or 3.
        modalities: number of modalities M.
        channels: channels C of every modality's features, and of the result.
        tokens: tokens per axis and modality; fewer where the feature map is smaller.
        depth: number of transformer layers.
        heads: attention heads; must divide ``channels``.
        mlp_ratio: width of the hidden feed-forward layer in units of ``channels``.
        dropout: dropout rate of embedding, attention and feed-forward.
        restore: how tokens become a map, ``"trilinear"`` interpolation (bilinear in 2-D) or ``"subvoxel"``, a
            1x1 convolution to ``scale`` times finer sub-voxels (interpolated where that misses the size).
        scale: up-sampling factor of ``"subvoxel"``; the size of the feature map over ``tokens``.
        attention: ``"softmax"`` over the modalities, or ``"sigmoid"``: sigmoid gates divided by their sum.
        per_channel: one weight per channel and voxel (True) or per voxel (False).

    Raises:
        ValueError: when an argument is outside its range or no known option.

    Example:
        >>> fusion = DMAFFusion(spatial_dims=3, modalities=4, channels=16)
        >>> features, mask = torch.rand(2, 4, 16, 10, 10, 10), torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0]]).bool()
        >>> fusion(features, mask).shape
        torch.Size([2, 16, 10, 10, 10])
    """

    def __init__(
        self,
        spatial_dims: int,
        modalities: int,
        channels: int,
        tokens: int | Sequence[int] = 5,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: int = 4,
        dropout: float = 0.1,
        restore: str = "trilinear",
        scale: int = 1,
        attention: str = "softmax",
        per_channel: bool = True,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        if channels % heads != 0:
            raise ValueError(f"channels must be a multiple of heads, got {channels} channels and {heads} heads")
        grid = ensure_tuple_rep(tokens, spatial_dims)
        if min(grid) < 1 or depth < 1 or scale < 1:
            raise ValueError(f"tokens, depth and scale must be at least 1, got {tokens}, {depth} and {scale}")
        self.spatial_dims = spatial_dims
        self.modalities = modalities
        self.grid = [int(size) for size in grid]
        self.mode = "trilinear" if spatial_dims == 3 else "bilinear"
        self.scale = scale if look_up_option(restore, ("trilinear", "subvoxel")) == "subvoxel" else 1
        self.gated = look_up_option(attention, ("softmax", "sigmoid")) == "sigmoid"

        self.position_embedding = nn.Parameter(torch.zeros(1, channels, *self.grid))
        self.modality_embedding = nn.Parameter(torch.zeros(modalities, channels))
        nn.init.trunc_normal_(self.position_embedding, std=0.02)
        nn.init.trunc_normal_(self.modality_embedding, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(channels, heads, mlp_ratio * channels, dropout) for _ in range(depth)
        )
        maps = channels if per_channel else 1
        self.to_maps: nn.Module = nn.Identity()
        if restore == "subvoxel" or not per_channel:
            self.to_maps = Conv["conv", spatial_dims](channels, maps * self.scale**spatial_dims, kernel_size=1)

    def project(self, features: Tensor) -> Tensor:
        """(B, M, C, ...) -> pooled features (B, M, C, p, ...): the part that no mask changes."""
        grid: list[int] = []
        for wanted, size in zip(self.grid, features.shape[3:]):  # noqa: B905 (TorchScript knows no strict)
            grid.append(min(wanted, size))
        return area_pool(features, grid)

    def weights(self, projected: Tensor, mask: Tensor, columns: Tensor, size: list[int]) -> Tensor:
        """Weight of each modality: (B, m, C or 1, ...) at ``size``; sums to one over the modalities of a row.

        Args:
            projected: pooled features (B, m, C, p, ...) of :meth:`project`.
            mask: bool (B, m).
            columns: (m,) which modalities these are.
            size: spatial size of the weights.
        """
        batch, number, channels = projected.shape[0], projected.shape[1], projected.shape[2]
        grid = list(projected.shape[3:])
        place: Tensor = self.position_embedding
        if grid != self.grid:
            place = interpolate(place, size=grid, mode=self.mode, align_corners=False)
        embedding = self.modality_embedding.index_select(0, columns).reshape(
            [1, number, channels] + [1] * self.spatial_dims
        )
        x = self.dropout(projected + place.unsqueeze(1) + embedding)
        x = x.flatten(3).transpose(2, 3)  # (B, m, P, C)
        x = zero_absent(x, mask).flatten(1, 2)
        # a row without any modality attends to its zeros instead of dividing by zero
        keys = torch.logical_or(mask, torch.logical_not(mask.any(dim=1, keepdim=True)))
        present = keys.unsqueeze(2).expand(batch, number, x.shape[1] // number).flatten(1)
        for layer in self.layers:
            q, k, v = layer.project(x)  # type: ignore[operator]
            x = layer.attend(x, q, k, v, present[:, None, None])  # type: ignore[operator]
            x = torch.where(present.unsqueeze(2), x, torch.zeros_like(x))
        x = x.reshape(batch * number, -1, channels).transpose(1, 2).reshape([batch * number, channels] + grid)
        x = self.to_maps(x)
        if self.scale > 1:
            x = pixelshuffle(x, self.spatial_dims, self.scale)
        if list(x.shape[2:]) != size:
            x = interpolate(x, size=size, mode=self.mode, align_corners=False)
        x = x.reshape([batch, number, -1] + size)
        if self.gated:
            x = -softplus(-x)  # log-sigmoid; their softmax is sigmoids over their sum, without underflow
        if selects_rows(mask) and bool(mask.all()):
            return x.softmax(dim=1)  # nothing to mask: saves two passes over the largest tensors of the network
        shape = [batch, number] + [1] * (x.ndim - 2)
        x = x.masked_fill(torch.logical_not(keys).reshape(shape), float("-inf")).softmax(dim=1)
        return x.masked_fill(torch.logical_not(mask).reshape(shape), 0.0)

    def forward(self, features: Tensor, mask: Tensor, projected: Tensor | None = None) -> Tensor:
        """Fuse.

        Rows with a single modality skip the attention, and modalities that no other row has are left out of it; the
        result is the same.

        Args:
            features: (B, M, C, ...).
            mask: bool (B, M), which modalities may be used.
            projected: what :meth:`project` gives for these features, when it is known already.

        Returns:
            fused features (B, C, ...).
        """
        mask = mask.to(torch.bool)
        if projected is None:
            projected = self.project(features)
        if not selects_rows(features):
            return self._weighted_sum(features, mask, projected, torch.arange(self.modalities, device=mask.device))
        rows = torch.nonzero(mask.sum(dim=1) > 1).flatten()
        if rows.numel() == 0:
            return zero_absent(features, mask).sum(dim=1)
        columns = torch.nonzero(mask[rows].any(dim=0)).flatten()
        chosen, seen, pooled = features, mask, projected
        if rows.numel() < mask.shape[0]:
            chosen, seen, pooled = features[rows], mask[rows], projected[rows]
        if columns.numel() < self.modalities:
            chosen, pooled = chosen.index_select(1, columns), pooled.index_select(1, columns)
            seen = seen.index_select(1, columns)
        fused = self._weighted_sum(chosen, seen, pooled, columns)
        if rows.numel() < mask.shape[0]:
            alone = zero_absent(features, mask).sum(dim=1)
            fused = alone.index_copy(0, rows, fused.to(alone.dtype))
        return fused

    def _weighted_sum(self, features: Tensor, mask: Tensor, projected: Tensor, columns: Tensor) -> Tensor:
        weights = self.weights(projected, mask, columns, list(features.shape[3:]))
        if not (selects_rows(mask) and bool(mask.all())):
            features = zero_absent(features, mask)
        parts = weights.unbind(1)  # one pass forward and backward, where slices would each fill a whole gradient
        maps = features.unbind(1)
        fused = parts[0] * maps[0]
        for m in range(1, len(maps)):
            fused = fused + parts[m] * maps[m]
        return fused
