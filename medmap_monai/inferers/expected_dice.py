"""Label maps of the highest expected Dice: how far a region reaches follows what the network expects of itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medmap_monai.utils.connected_parts import connected_parts

_TINY = 1e-6  # keeps logarithms of probabilities finite
_SURE = 1e-3  # least distance of a decided score from the one it beats


def best_threshold(probabilities: Tensor) -> tuple[float, float]:
    r"""Threshold on probabilities that maximises the expected Dice of the mask above it, and that Dice.

    With independent voxels :math:`E[\mathrm{Dice}(S)] \approx 2 \sum_S p / (|S| + \sum p)`, which the voxels above
    half of its own maximum maximise; found by Dinkelbach's iteration. Source: Lipton, Elkan and Narayanaswamy,
    "Thresholding classifiers to maximize F1 score" (2014); Dice is F1.

    Args:
        probabilities: of belonging to the region, any shape.

    Returns:
        threshold in 0 .. 0.5, and the expected Dice in 0 .. 1; (0.5, 0.0) where every probability is 0.
    """
    p = probabilities.double().flatten()
    total = float(p.sum())
    expected = 0.0
    while total > 0:
        chosen = p[p > expected / 2]
        better = 2 * float(chosen.sum()) / (len(chosen) + total)
        if better <= expected:
            return expected / 2, expected
        expected = better
    return 0.5, 0.0


class ExpectedDiceDecision:
    """Class scores whose largest is the label map of the highest expected Dice, region inside region.

    Where a network is unsure, as with one sequence alone, few voxels reach one half, and the class of the largest score
    leaves out much of what is there. Here each region is cut where its expected Dice is highest
    (:func:`best_threshold`), the outermost near what is found, each further one among those of the region around it. It
    decides how far a finding reaches, never whether there is one: a finding grows from what the largest score calls
    it, and a region that the largest score nowhere sees stays empty. Source: ours, with the threshold of Lipton et al.

    The probabilities should mean what they say; on studies unlike those of the training networks are too sure, and a
    temperature above 1 tempers that.

    Args:
        regions: class indices of nested regions, the outermost, with every class but background, first.
        temperature: scores are divided by it.
        smallest_seed: voxels; findings with fewer are left as they are, neither grown nor removed.
        reach: voxels; how far a finding may grow, and from where on a voxel is not asked. Without a limit (None) the
            small probabilities of a whole brain add up, and lower the threshold of a small tumour far too much.

    Raises:
        ValueError: regions that are not nested, that leave a class out or hold background; a temperature or
            a ``reach`` that is not positive; a negative ``smallest_seed``.

    Example:
        >>> decide = ExpectedDiceDecision([[1, 2], [2]])
        >>> scores = torch.tensor([0.0, 1.0, -9.0]).reshape(1, 3, 1) + torch.tensor([[[0, 0.3], [0, -1.0], [0, 0]]])
        >>> scores.argmax(1).tolist(), decide(scores).argmax(1).tolist()
        ([[1, 0]], [[1, 1]])
    """

    def __init__(
        self,
        regions: Sequence[Sequence[int]],
        temperature: float = 1.0,
        smallest_seed: int = 0,
        reach: float | None = None,
    ) -> None:
        self.regions = tuple(tuple(int(c) for c in region) for region in regions)
        self.temperature = float(temperature)
        self.smallest_seed = int(smallest_seed)
        self.reach = None if reach is None else float(reach)
        if not self.regions or not all(self.regions):
            raise ValueError(f"regions must be lists of class indices, got {regions}")
        for outer, inner in zip(self.regions, self.regions[1:], strict=False):
            if not set(inner) < set(outer):
                raise ValueError(f"regions must be nested, the outermost first; {list(inner)} is no part of {outer}")
        if min(self.regions[0]) < 1:
            raise ValueError(f"classes of regions must be indices from 1 (0 is background), got {self.regions[0]}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if self.smallest_seed < 0:
            raise ValueError(f"smallest_seed must not be negative (voxels), got {smallest_seed}")
        if self.reach is not None and self.reach <= 0:
            raise ValueError(f"reach must be positive (voxels) or None, got {reach}")

    def __call__(self, scores: Tensor, probabilities: bool = False) -> Tensor:
        """Logits (B, K, ...), or with ``probabilities`` those -> logits of the decision, same shape.

        Raises:
            ValueError: the classes of ``scores`` are not background and those of the outermost region.
        """
        classes = sorted((0, *self.regions[0]))
        if classes != list(range(scores.shape[1])):
            raise ValueError(f"{scores.shape[1]} class scores, but the regions have the classes {classes}")
        if probabilities:
            scores = scores.clamp(min=_TINY).log()
        return torch.stack([self._decide(one) for one in scores.detach()])

    def _decide(self, scores: Tensor) -> Tensor:
        plain = scores.argmax(dim=0)
        seeds = _large(plain > 0, self.smallest_seed)
        if not bool(seeds.any()):
            return scores
        near = torch.ones_like(seeds) if self.reach is None else _within(seeds, self.reach)
        odds = self._odds(scores, 0, near)
        inside = _touched(seeds | (near & (odds > 0)), seeds)
        best = _signed(odds, inside)  # background has 0
        decided = torch.zeros_like(scores)
        grown = inside
        for level, region in enumerate(self.regions):
            inner = self.regions[level + 1] if level + 1 < len(self.regions) else ()
            against = torch.zeros_like(best)
            if inner:
                seen = torch.isin(plain[inside & seeds], torch.tensor(inner, device=plain.device)).any()
                odds = self._odds(scores, level + 1, inside)
                inside = inside & (odds > 0) & seen
                against = _signed(odds, inside)
            shell = [c for c in region if c not in inner]
            decided[shell] = best - against.clamp(min=0) + scores[shell] - scores[shell].amax(dim=0)
            best = best + against.clamp(max=0)
        # what is far off, and what is too small to grow, stays as it is, its edges between voxels included
        return torch.where(near & ((plain == 0) | grown), decided, scores)

    def _odds(self, scores: Tensor, level: int, where: Tensor) -> Tensor:
        """Log-odds of the region of ``level`` over those of its threshold, which is chosen among ``where``."""
        region = list(self.regions[level])
        others = [c for c in range(len(scores)) if c not in region]
        tempered = scores / self.temperature
        odds = tempered[region].logsumexp(dim=0) - tempered[others].logsumexp(dim=0)
        threshold, _ = best_threshold(odds[where].sigmoid())
        return odds - math.log(max(threshold, _TINY) / (1 - threshold))


def _signed(odds: Tensor, where: Tensor) -> Tensor:
    """``odds`` made positive in ``where`` and negative elsewhere, never so close to 0 that rounding decides."""
    sure = odds.abs().clamp(min=_SURE)
    return torch.where(where, sure, -sure)


def _large(mask: Tensor, smallest: int) -> Tensor:
    """The connected parts of ``mask`` (over faces, edges and corners) of at least ``smallest`` voxels."""
    if smallest <= 1 or not bool(mask.any()):
        return mask
    parts, sizes = connected_parts(mask.cpu().numpy())
    large = np.concatenate([[False], sizes >= smallest])
    return torch.from_numpy(large[parts]).to(mask.device)


def _touched(mask: Tensor, seeds: Tensor) -> Tensor:
    """The connected parts of ``mask`` that hold a voxel of ``seeds``."""
    parts, sizes = connected_parts(mask.cpu().numpy())
    kept = np.zeros(len(sizes) + 1, dtype=bool)
    kept[np.unique(parts[seeds.cpu().numpy()])] = True
    kept[0] = False
    return torch.from_numpy(kept[parts]).to(mask.device)


def _within(mask: Tensor, reach: float) -> Tensor:
    """The voxels at most ``reach`` voxels from ``mask``."""
    distance = ndimage.distance_transform_edt(~mask.cpu().numpy())
    return torch.from_numpy(distance <= reach).to(mask.device)
