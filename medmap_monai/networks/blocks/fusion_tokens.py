"""M2FTrans's bottleneck: learned fusion tokens that gather from the tokens of the available modalities."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from medmap_monai.networks.blocks.backend import selects_rows
from medmap_monai.networks.blocks.slots import select_modalities
from medmap_monai.networks.blocks.transformer import TransformerLayer, resize_positions, to_maps, to_tokens


class FusionTokenTransformer(nn.Module):
    """Masked transformer over the tokens of all modalities and as many fusion tokens.

    Tokens of a modality see only that modality; fusion tokens see the available modalities and each other; nobody else
    sees fusion tokens. So a modality's tokens depend neither on the others nor on the mask: :meth:`prepare` takes them
    through all layers once and keeps their keys and values, and a subset costs the fusion tokens alone.

    Args:
        modalities: number of modalities M.
        width: channels D of a token, a multiple of ``heads``.
        layers: number of layers, at least 1.
        heads: attention heads.
        mlp_width: hidden width of the MLPs.
        dropout_rate: dropout of the layers.
        grid: token grid of the positional embedding and of the fusion tokens.
    """

    def __init__(
        self,
        modalities: int,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        dropout_rate: float,
        grid: list[int],
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"transformer_layers must be at least 1, got {layers}")
        count = math.prod(grid)
        self.modalities = modalities
        self.grid = grid
        self.positions = nn.Parameter(torch.zeros(1, (modalities + 1) * count, width))
        self.fusion_tokens = nn.Parameter(torch.randn(1, count, width))
        self.layers = nn.ModuleList(TransformerLayer(width, heads, mlp_width, dropout_rate) for _ in range(layers))

    def positions_for(self, size: list[int]) -> list[Tensor]:
        """Positional embeddings (1, N, D) of each modality and, last, of the fusion tokens, for a grid of ``size``."""
        places: list[Tensor] = []
        for block in self.positions.chunk(self.modalities + 1, dim=1):
            places.append(resize_positions(block, self.grid, size))
        return places

    def prepare(self, deepest: Tensor, wanted: Tensor | None = None) -> list[Tensor]:
        """Tokens of every modality through all layers.

        Args:
            deepest: (B, M, D, ...), deepest encoder maps.
            wanted: bool (B, M); the others are left out (zeros). None means all.

        Returns:
            the resulting maps (B, M, D, ...), then keys and values of each layer (B, M, N, 2 D).
        """
        if wanted is None or not selects_rows(deepest):
            wanted = torch.ones(deepest.shape[:2], dtype=torch.bool, device=deepest.device)
            rows = torch.arange(wanted.numel(), device=deepest.device)
        else:
            rows = torch.nonzero(wanted.flatten()).flatten()
        size = list(deepest.shape[3:])
        positions = torch.cat(self.positions_for(size)[:-1])  # (M, N, D)
        x = to_tokens(deepest.flatten(0, 1).index_select(0, rows))
        x = x + positions.index_select(0, rows % self.modalities)
        out: list[Tensor] = []
        for layer in self.layers:
            q, k, v = layer.project(x)  # type: ignore[operator]
            out.append(self._all_rows(torch.cat([k, v], dim=2), rows, wanted))
            x = layer.attend(x, q, k, v)  # type: ignore[operator]
        return [self._all_rows(to_maps(x, size), rows, wanted)] + out

    def _all_rows(self, x: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
        empty = torch.zeros([wanted.numel()] + list(x.shape[1:]), dtype=x.dtype, device=x.device)
        return empty.index_copy(0, rows, x).reshape(list(wanted.shape) + list(x.shape[1:]))

    def forward(
        self,
        prepared: list[Tensor],
        mask: Tensor,
        rows: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Fusion tokens through all layers.

        Args:
            prepared: what :meth:`prepare` returned for B samples.
            mask: bool (R, M), the modalities that a row may see.
            rows: (R,), the sample of each row.

        Returns:
            the fusion map (R, D, ...), and the attention that each position of each modality got in the first layer
            (R, M, 1, ...): summed over heads and fusion tokens, after dropout, detached, zero where the mask is.
        """
        size = list(prepared[0].shape[3:])
        x = resize_positions(self.fusion_tokens, self.grid, size) + self.positions_for(size)[-1]
        x = x.expand(mask.shape[0], -1, -1)
        attention = x
        for i, layer in enumerate(self.layers):
            chosen, placement = select_modalities(prepared[i + 1], mask, None, rows)
            count = chosen.shape[2]
            q, k, v = layer.project(x)  # type: ignore[operator]
            others_k, others_v = chosen.flatten(1, 2).chunk(2, dim=2)
            k = torch.cat([others_k.to(k.dtype), k], dim=1)
            v = torch.cat([others_v.to(v.dtype), v], dim=1)
            seen = (placement.sum(dim=2) > 0).repeat_interleave(count, dim=1)
            seen = torch.cat([seen, torch.ones_like(seen[:, :1]).expand(-1, count)], dim=1)[:, None, None]
            if i == 0:
                x, weights = layer.attend_openly(x, q, k, v, seen)  # type: ignore[operator]
                # published detail: the maps are weighted by the attention after its dropout, without gradient
                got = weights.detach()[..., : chosen.shape[1] * count].sum(dim=[1, 2]).unflatten(1, [-1, count])
                attention = torch.einsum("rsn,rsm->rmn", got, placement.to(got.dtype)).unflatten(2, [1] + size)
            else:
                x = layer.attend(x, q, k, v, seen)  # type: ignore[operator]
        return to_maps(x, size), attention
