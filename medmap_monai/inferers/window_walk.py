"""The one walk over the windows of a volume, for one result or many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from monai.data.utils import compute_importance_map
from torch import Tensor
from tqdm import tqdm

from medmap_monai.inferers.blend import NOT_FINITE, Blend, LabelBlend, ScoreBlend
from medmap_monai.inferers.unwrap import NetworkFacts
from medmap_monai.inferers.windows import (
    slices_as_batch,
    slices_to_volume,
    volume_presence,
    window_grid,
    window_size,
    with_meta,
    without_absent,
)


@dataclass(frozen=True)
class WalkOptions:
    """How windows lie, how they are blended, and what is decided; see ``monai.inferers.SlidingWindowInferer``.

    Args:
        probabilities: probabilities are averaged, not logits.
        decision: what becomes of the blended scores of a volume, such as
            :class:`~medmap_monai.inferers.expected_dice.ExpectedDiceDecision`; None leaves them as they are.
    """

    roi_size: Sequence[int] | int
    overlap: Sequence[float] | float
    mode: str
    probabilities: bool
    sigma_scale: Sequence[float] | float = 0.125
    sw_device: torch.device | str | None = None
    device: torch.device | str | None = None
    padding_mode: str = "constant"
    cval: float = 0.0
    progress: bool = False
    decision: Decision | None = None

    @classmethod
    def of(cls, inferer: Any, **others: Any) -> WalkOptions:
        """Those that ``inferer`` holds under MONAI's names and as ``blend``; ``others`` beside them or instead."""
        names = ("roi_size", "overlap", "mode", "sigma_scale", "sw_device", "device", "decision")
        held = {name: getattr(inferer, name) for name in names}
        return cls(probabilities=inferer.blend == "probabilities", **{**held, **others})


class Decision(Protocol):
    """Whoever turns the scores of whole volumes into others whose largest is the class to take."""

    def __call__(self, scores: Tensor, probabilities: bool = False) -> Tensor:
        """Blended logits (B, K, ...), or with ``probabilities`` those -> scores of the same shape."""


class WindowScores(Protocol):
    """Whoever computes the class scores of windows."""

    @property
    def classes(self) -> int:
        """Number of classes; 0 where that is known only after the first call."""

    def at_once(self) -> int:
        """Windows of one call."""

    def __call__(self, windows: Tensor, present: Tensor) -> Iterator[tuple[int, int, Tensor | None]]:
        """Yield (window, result, scores), once for each window (n, M, ...) and result, in the order to add them.

        Scores are (K, ...); None says that a window is background. ``present`` is bool (n, M).
        """


def blended(logits: Tensor, probabilities: bool) -> Tensor:
    """What is averaged over windows, of logits (n, K, ...): float32, or wider."""
    logits = logits.float()
    return logits.softmax(dim=1) if probabilities else logits


class WindowWalk:
    """Padding, visiting, blending and placing the windows of a batch of volumes.

    MONAI's own function keeps a whole volume of scores for every result, or as many walks; here windows are the outer
    loop, so whoever computes scores may share work between results, and labels need a slab of scores only.

    Slices of a volume are the samples of a network that works on slices.

    Args:
        options: how windows lie.
        inputs: image (B, M, ...); what an absent channel holds has no influence.
        mask: bool (B, M), (1, M) or (M,); None: what the volume shows.
        facts: of the network; None: windows are as asked for.
    """

    def __init__(self, options: WalkOptions, inputs: Tensor, mask: Tensor | None, facts: NetworkFacts | None) -> None:
        self.options = options
        self.inputs = inputs
        self.presence = volume_presence(inputs, mask)
        self.rows = self.presence
        image = without_absent(inputs, self.presence).as_subclass(Tensor)
        self.sliced = facts is not None and inputs.ndim == facts.spatial_dims + 3
        if self.sliced:
            self.rows = self.presence.repeat_interleave(image.shape[-1], dim=0)
            image = slices_as_batch(image)
        self.image_size = tuple(image.shape[2:])
        self.window = window_size(options.roi_size, self.image_size, 1 if facts is None else facts.stride)
        missing = [max(roi - size, 0) for roi, size in zip(self.window, self.image_size, strict=True)]
        self.offset = [count // 2 for count in missing]
        padding = [n for count in reversed(missing) for n in (count // 2, count - count // 2)]
        self.image = F.pad(image, padding, options.padding_mode, options.cval) if any(padding) else image
        self.size = tuple(self.image.shape[2:])
        self.sw_device = torch.device(options.sw_device or image.device)
        self.device = torch.device(options.device or image.device)
        # the axis along which a slab as thick as a window is the smallest part of the volume
        self.axis = max(range(len(self.window)), key=lambda a: self.size[a] / self.window[a])

    def bytes_of_a_result(self, classes: int, labels: bool) -> int:
        """Memory that a result of all samples takes while the walk goes on."""
        voxels = prod(self.size)
        if self.options.decision is not None:  # it needs the scores of the whole volume, and makes others
            return self.image.shape[0] * 8 * classes * voxels
        slab = voxels // self.size[self.axis] * self.window[self.axis]
        return self.image.shape[0] * (4 * classes * slab + voxels if labels else 4 * classes * voxels)

    def __call__(self, scores: WindowScores, results: int = 1, labels: bool = False) -> list[Tensor]:
        """The results, each (B, K, ...) or as labels uint8 (B, 1, ...), with the meta data of the inputs.

        Raises:
            ValueError: scores that are to become labels are not finite.
        """
        decide = self.options.decision
        if decide is not None:
            found = [_decided(decide, each, self.options.probabilities, labels) for each in self._walk(scores, results)]
        else:
            found = self._walk(scores, results, labels)
        return [with_meta(result, self.inputs) for result in found]

    def _walk(self, scores: WindowScores, results: int, labels: bool = False) -> list[Tensor]:
        samples = self.image.shape[0]
        places = window_grid(self.size, self.window, self.options.overlap)
        rounds: dict[int, list[tuple[slice, ...]]] = {}
        for place in sorted(places, key=lambda p: int(p[self.axis].start)) if labels else places:
            rounds.setdefault(int(place[self.axis].start) if labels else 0, []).append(place)
        blend = self._blend(scores.classes, results, labels) if scores.classes else None
        bar = tqdm(total=samples * len(places)) if self.options.progress else None
        for start, nearby in rounds.items():
            if blend is not None:
                blend.move_to(start)
            pairs = [(sample, place) for sample in range(samples) for place in nearby]
            step = scores.at_once()
            for i in range(0, len(pairs), step):
                batch = pairs[i : i + step]
                windows = torch.stack([self.image[sample][(slice(None), *place)] for sample, place in batch])
                present = self.rows[[sample for sample, _ in batch]].to(self.sw_device)
                for row, result, score in scores(windows.to(self.sw_device), present):
                    if blend is None:
                        blend = self._blend(scores.classes, results, labels)
                    blend.add(batch[row][0], result, batch[row][1], score)
                for sample, place in batch:
                    if sample == 0 and blend is not None:
                        blend.count(place)
                if bar is not None:
                    bar.update(len(batch))
        if bar is not None:
            bar.close()
        assert blend is not None  # there is at least one window
        whole = blend.close()
        for axis, (offset, size) in enumerate(zip(self.offset, self.image_size, strict=True)):
            whole = whole.narrow(axis + 3, offset, size)
        volumes = self.inputs.shape[0]
        return [slices_to_volume(whole[:, i], volumes) if self.sliced else whole[:, i] for i in range(results)]

    def _blend(self, classes: int, results: int, labels: bool) -> Blend:
        dtype = torch.float32 if labels else torch.promote_types(self.image.dtype, torch.float32)
        weights = compute_importance_map(
            self.window, self.options.mode, self.options.sigma_scale, self.device, dtype
        ).as_subclass(Tensor)
        shape = (self.image.shape[0], results, classes)
        if labels:
            return LabelBlend(shape, weights, self.options.probabilities, self.size, self.axis)
        return ScoreBlend(shape, weights, self.options.probabilities, self.size)


def _decided(decide: Decision, scores: Tensor, probabilities: bool, labels: bool) -> Tensor:
    """Scores of a decision, or the labels that they say; scores that are not finite are passed on as they are.

    Raises:
        ValueError: scores that are to become labels are not finite.
    """
    if not bool(torch.isfinite(scores).all()):
        if labels:
            raise ValueError(NOT_FINITE)
        return scores  # the caller looks for them, and names the study
    scores = decide(scores, probabilities)
    return scores.argmax(dim=1, keepdim=True).to(torch.uint8) if labels else scores
