"""The transformer layer of mmFormer and M2FTrans, and positional embeddings that fit any grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import MLPBlock
from torch import Tensor, nn


def grid_sizes(size: int | Sequence[int], spatial_dims: int) -> list[int]:
    """A token grid as a list of ``spatial_dims`` sizes, all the same when one number is given.

    Raises:
        ValueError: when the number of sizes is wrong or one is below 1.
    """
    sizes = [size] * spatial_dims if isinstance(size, int) else [int(n) for n in size]
    if len(sizes) != spatial_dims or min(sizes) < 1:
        raise ValueError(f"position_size must be a positive number or {spatial_dims} of them, got {size}")
    return sizes


def resize_positions(positions: Tensor, grid: list[int], size: list[int]) -> Tensor:
    """Positional embeddings (1, N, D) of tokens on ``grid`` (C order), interpolated linearly to another grid."""
    if grid == size:
        return positions
    mode = "trilinear" if len(grid) == 3 else "bilinear"
    maps = positions.transpose(1, 2).reshape([1, -1] + grid)
    return F.interpolate(maps, size=size, mode=mode, align_corners=False).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention with one projection for queries, keys and values, in that order and head-major.

    Args:
        width: channels of a token; a multiple of ``heads``.
        heads: number of heads.
        dropout_rate: dropout of the attention and of the projected result.
    """

    def __init__(self, width: int, heads: int, dropout_rate: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the token width {width} must be a multiple of heads = {heads}")
        self.heads = heads
        self.dropout_rate = dropout_rate
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout_rate)

    def split_heads(self, x: Tensor) -> Tensor:
        """(R, N, D) -> (R, heads, N, D / heads)."""
        return x.unflatten(2, [self.heads, -1]).transpose(1, 2)

    def join_heads(self, x: Tensor) -> Tensor:
        """(R, heads, N, D / heads) -> (R, N, D), projected."""
        return self.drop(self.proj(x.transpose(1, 2).flatten(2)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of (R, N, D) queries to keys and values (R, N', D); ``mask`` (R, 1, 1 or N, N') True = allowed."""
        rate = self.dropout_rate if self.training else 0.0
        q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)
        return self.join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate))

    def weights(self, q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
        """The attention itself, (R, heads, N, N'), after its dropout; for whoever needs to look at it."""
        q, k = self.split_heads(q), self.split_heads(k)
        logits = torch.matmul(q * q.shape[3] ** -0.5, k.transpose(2, 3)).masked_fill(~mask, float("-inf"))
        return F.dropout(torch.softmax(logits, dim=3), self.dropout_rate, self.training)

    def gather(self, weights: Tensor, v: Tensor) -> Tensor:
        """Values (R, N', D) weighted by :meth:`weights` -> (R, N, D); with it, the same as :meth:`attend`."""
        return self.join_heads(torch.matmul(weights.to(v.dtype), self.split_heads(v)))


class TransformerLayer(nn.Module):
    """Pre-norm layer: ``x + dropout(attention(norm(x)))``, then ``x + mlp(norm(x))``; tokens (R, N, D).

    Args:
        width: channels D of a token.
        heads: number of heads.
        mlp_width: hidden width of the MLP (exact GELU).
        dropout_rate: every dropout: of the attention, its projection, the sum, and both in the MLP.
    """

    def __init__(self, width: int, heads: int, mlp_width: int, dropout_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout_rate)
        self.drop = nn.Dropout(dropout_rate)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLPBlock(width, mlp_width, dropout_rate)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (R, N, D) of tokens ``x``."""
        q, k, v = self.attention.qkv(self.norm1(x)).chunk(3, dim=2)
        return q, k, v

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The layer from the attention's result on: both sums and the MLP."""
        x = x + self.drop(attended)
        return x + self.mlp(self.norm2(x))

    def attend(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """The layer from queries, keys and values on; ``mask`` as in :meth:`Attention.attend`."""
        return self.finish(x, self.attention.attend(q, k, v, mask))

    def attend_openly(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Like :meth:`attend`, with the attention (R, heads, N, N') after its dropout as second result."""
        weights = self.attention.weights(q, k, mask)
        return self.finish(x, self.attention.gather(weights, v)), weights

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x)
        return self.attend(x, q, k, v)


def to_tokens(maps: Tensor) -> Tensor:
    """(R, C, ...) -> (R, N, C), positions in C order."""
    return maps.flatten(2).transpose(1, 2)


def to_maps(tokens: Tensor, size: list[int]) -> Tensor:
    """(R, N, C) -> (R, C, *size)."""
    return torch.unflatten(tokens.transpose(1, 2), 2, size)
