"""What becomes of overlapping windows: weighted sums of class scores, as scores or as labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from medmap_monai.inferers.windows import BACKGROUND_LOGIT

Place = tuple[slice, ...]
NOT_FINITE = "the network computes NaN or Inf; look for voxels of extreme value, and leave mixed precision (amp) off"


class Blend(ABC):
    """Sums of the scores of windows, each times ``weights``, for every sample and every result.

    Args:
        shape: samples, results and classes.
        weights: of the voxels of a window, positive.
        probabilities: what background is certain in: probabilities, or logits.
    """

    sums: Tensor  # (samples, results, classes, ...)

    def __init__(self, shape: tuple[int, int, int], weights: Tensor, probabilities: bool) -> None:
        self.shape = shape
        self.weights = weights
        self.background = weights * (1.0 if probabilities else BACKGROUND_LOGIT)

    @abstractmethod
    def move_to(self, start: int) -> None:
        """No window to come begins before ``start`` along the axis of the walk."""

    @abstractmethod
    def count(self, place: Place) -> None:
        """A window at ``place`` is visited; told once for all samples and results."""

    @abstractmethod
    def add(self, sample: int, result: int, place: Place, scores: Tensor | None) -> None:
        """Add ``scores`` (K, ...) of the window at ``place``; None is certain background."""

    @abstractmethod
    def close(self) -> Tensor:
        """Every window is added: scores (samples, results, K, ...) or labels (samples, results, 1, ...)."""


class ScoreBlend(Blend):
    """Weighted means of the scores on the grid of the volume, rounded as by MONAI's sliding window.

    Args:
        shape, weights, probabilities: see :class:`Blend`.
        size: voxels of the volume.
    """

    def __init__(self, shape: tuple[int, int, int], weights: Tensor, probabilities: bool, size: Sequence[int]) -> None:
        super().__init__(shape, weights, probabilities)
        self.sums = torch.zeros([*shape, *size], dtype=weights.dtype, device=weights.device)
        self.total = torch.zeros(list(size), dtype=weights.dtype, device=weights.device)

    def move_to(self, start: int) -> None:
        """Nothing is finished before the end."""

    def count(self, place: Place) -> None:
        self.total[place] += self.weights

    def add(self, sample: int, result: int, place: Place, scores: Tensor | None) -> None:
        if scores is None:
            self.sums[sample, result, 0][place] += self.background
        else:
            scores = scores.to(self.weights.device)
            # in place as MONAI does it, where no gradient forbids: another tensor of this size costs time
            weighted = scores * self.weights if scores.requires_grad else scores.mul_(self.weights)
            self.sums[sample, result][(slice(None), *place)].add_(weighted)

    def close(self) -> Tensor:
        self.sums /= self.total
        return self.sums


class LabelBlend(Blend):
    """The class of the largest sum, uint8.

    The sums are kept in a slab as thick as a window: what no later window reaches becomes labels, a byte per voxel.

    Args:
        shape, weights, probabilities: see :class:`Blend`.
        size: voxels of the volume.
        axis: the axis along which windows are visited.
    """

    def __init__(
        self, shape: tuple[int, int, int], weights: Tensor, probabilities: bool, size: Sequence[int], axis: int
    ) -> None:
        super().__init__(shape, weights, probabilities)
        self.axis = axis
        self.origin = 0
        self.end = size[axis]
        slab = list(size)
        slab[axis] = weights.shape[axis]
        self.sums = torch.zeros([*shape, *slab], dtype=weights.dtype, device=weights.device)
        self.labels = torch.empty([*shape[:2], 1, *size], dtype=torch.uint8, device=weights.device)
        self.finite = torch.ones((), dtype=torch.bool, device=weights.device)

    def move_to(self, start: int) -> None:
        planes = start - self.origin
        if planes == 0:
            return
        rest = self.weights.shape[self.axis] - planes
        for sums, labels in zip(self.sums.flatten(0, 1), self.labels.flatten(0, 1), strict=True):  # memory: one by one
            done = sums.narrow(self.axis + 1, 0, planes)
            self.finite &= torch.isfinite(done).all()
            # the weights are positive: no need to divide
            labels.narrow(self.axis + 1, self.origin, planes).copy_(done.argmax(dim=0, keepdim=True))
            if rest > 0:
                sums.narrow(self.axis + 1, 0, rest).copy_(sums.narrow(self.axis + 1, planes, rest).clone())
            sums.narrow(self.axis + 1, rest, planes).zero_()
        self.origin = start

    def count(self, place: Place) -> None:
        """Labels need no division."""

    def add(self, sample: int, result: int, place: Place, scores: Tensor | None) -> None:
        near = list(place)
        near[self.axis] = slice(place[self.axis].start - self.origin, place[self.axis].stop - self.origin)
        if scores is None:
            self.sums[sample, result, 0][tuple(near)] += self.background
        else:
            self.sums[sample, result][(slice(None), *near)].addcmul_(scores.to(self.weights.device), self.weights)

    def close(self) -> Tensor:
        self.move_to(self.end)
        if not bool(self.finite):  # as labels they would look like any other
            raise ValueError(NOT_FINITE)
        return self.labels
