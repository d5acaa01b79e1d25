"""What encoders hand to decoders, and what decoders hand on."""

# No postponed annotations here: TorchScript reads those of a NamedTuple as they are.

from typing import NamedTuple

import torch
from torch import Tensor


class ModalityFeatures:
    """What :meth:`~medmap_monai.networks.base.ModalityNetwork.encode` returns; nothing in it depends on which subset
    will be decoded.

    Args:
        pyramid: encoder features, level 0 = finest, each (B, M, C_l, ...); zero for an absent modality.
        tokens: deepest per-modality features after a per-modality transformer, (B, M, C, ...); None without one.
        present: bool (B, M), what the encoders saw; None where features were made by hand.
        parts: per level, what :meth:`~medmap_monai.networks.base.ModalityNetwork.prepare` made of it; an empty list
            where nothing was made or the level was changed since. None means empty everywhere.
    """

    def __init__(
        self,
        pyramid: list[Tensor],
        tokens: Tensor | None = None,
        present: Tensor | None = None,
        parts: list[list[Tensor]] | None = None,
    ) -> None:
        self.pyramid = pyramid
        self.tokens = tokens
        self.present = present
        if parts is None:
            empty: list[list[Tensor]] = []
            for _ in pyramid:
                empty.append([])
            parts = empty
        self.parts = parts

    def index_of(self, level: int) -> int:
        """``level`` counted from the finest; negative levels count from the deepest.

        Raises:
            ValueError: when there is no such level.
        """
        depth = len(self.pyramid)
        if level >= depth or level < -depth:
            raise ValueError(f"level {level} does not exist: the network has levels 0..{depth - 1}")
        return level if level >= 0 else depth + level

    def at(self, level: int) -> Tensor:
        """The maps (B, M, C, ...) that fusion reads at ``level``: tokens at the deepest level where there are any."""
        index = self.index_of(level)
        tokens = self.tokens
        if tokens is not None and index == len(self.pyramid) - 1:
            return tokens
        return self.pyramid[index]

    def with_level(self, level: int, maps: Tensor) -> "ModalityFeatures":
        """The same with other ``maps`` at ``level`` (see :meth:`at`), whose prepared parts are dropped."""
        index = self.index_of(level)
        pyramid = self.pyramid[:]
        parts = self.parts[:]
        tokens = self.tokens
        if tokens is not None and index == len(pyramid) - 1:
            tokens = maps
        else:
            pyramid[index] = maps
        parts[index] = []
        return ModalityFeatures(pyramid, tokens, self.present, parts)

    def with_parts(self, parts: list[list[Tensor]]) -> "ModalityFeatures":
        """The same with these prepared parts."""
        return ModalityFeatures(self.pyramid, self.tokens, self.present, parts)

    def rows(self, index: Tensor) -> "ModalityFeatures":
        """The features of the samples ``index`` (R,), repeated ones allowed; one sample is not copied."""
        pyramid: list[Tensor] = []
        for level in self.pyramid:
            pyramid.append(_rows(level, index))
        parts: list[list[Tensor]] = []
        for made in self.parts:
            taken: list[Tensor] = []
            for part in made:
                taken.append(_rows(part, index))
            parts.append(taken)
        tokens = self.tokens
        present = self.present
        return ModalityFeatures(
            pyramid,
            None if tokens is None else _rows(tokens, index),
            None if present is None else _rows(present, index),
            parts,
        )


def _rows(x: Tensor, index: Tensor) -> Tensor:
    if x.shape[0] == 1:
        return x.expand([index.shape[0]] + list(x.shape[1:]))
    return x.index_select(0, index)


class DecoderOutput(NamedTuple):
    """What :meth:`~medmap_monai.networks.base.ModalityNetwork.decode` returns.

    logits: (B, K, ...) at full resolution.
    deep_logits: deep-supervision logits at their own resolution, finest first.
    features: decoder features, finest first; element 0 has full resolution (prototype losses read it).
    fused: fused encoder features per level, finest first; empty where a backbone has none.
    """

    logits: Tensor
    deep_logits: list[Tensor]
    features: list[Tensor]
    fused: list[Tensor]


def zero_absent(features: Tensor, mask: Tensor) -> Tensor:
    """``features`` (B, M, ...) with exact zeros where ``mask`` (B, M) is False, NaN and Inf included."""
    shape = list(mask.shape) + [1] * (features.ndim - 2)
    return torch.where(mask.reshape(shape), features, torch.zeros_like(features))


def mask_at(mask: Tensor, level: int) -> Tensor:
    """The mask (B, M) of one pyramid level: ``mask`` itself, or its slice where a mask per level (B, L, M) is given."""
    return mask if mask.ndim == 2 else mask[:, level]
