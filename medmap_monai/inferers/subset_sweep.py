"""Segment a volume from every subset of its modalities, encoding each window once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from monai.data.utils import compute_importance_map
from monai.inferers import Inferer
from monai.utils import BlendMode, look_up_option
from torch import Tensor

from medmap_monai.inferers.unwrap import find_network
from medmap_monai.inferers.window_batch import check_window_batch, windows_that_fit
from medmap_monai.inferers.windows import (
    BACKGROUND_LOGIT,
    foreground,
    slices_as_batch,
    slices_to_volume,
    volume_presence,
    window_grid,
    window_size,
    with_meta,
    without_absent,
)
from medmap_monai.networks.base import ModalityFeatures, ModalityNetwork

Mask = tuple[bool, ...]


class SubsetSweepInferer(Inferer):
    """The predictions of :class:`ModalitySlidingWindowInferer` for all subsets, at the price of one encoding.

    An encoder sees one modality only, so a window's features serve every subset: windows are the outer loop, subsets
    the inner one. What has to be kept is one accumulator of class scores per subset. Two things keep that small:
    windows are visited plane by plane along one axis, so an accumulator is only as thick as a window and turns into
    labels (one byte per voxel) as soon as no later window reaches it; and when the accumulators of all subsets would
    exceed ``memory_limit``, the subsets are done in groups that fit, each of which encodes anew. Peak memory is thus
    bounded whatever the number of subsets. (The alternative, keeping the features of all windows, takes gigabytes per
    window at full resolution.)

    Args:
        roi_size, sw_batch_size, overlap, mode, blend, skip_background: see :class:`ModalitySlidingWindowInferer`.
        subsets: masks (M,) to do; None: every non-empty subset.
        output: ``labels``: class indices uint8 (B, 1, ...); ``scores``: blended logits or probabilities (B, K, ...).
        memory_limit: bytes for accumulators and outputs of the subsets that are done together; at least one subset
            is done at a time.
        sigma_scale, sw_device, device: see ``monai.inferers.SlidingWindowInferer``.

    Example:
        >>> from medmap_monai.networks.unet import ModalityUNet
        >>> net = ModalityUNet(3, in_channels=2, out_channels=3, channels=(4, 8), deep_supervision=0).eval()
        >>> labels = SubsetSweepInferer((16, 16, 16))(torch.rand(1, 2, 20, 24, 16), net)
        >>> sorted(labels)
        [(False, True), (True, False), (True, True)]
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int,
        sw_batch_size: int | str = 2,
        overlap: Sequence[float] | float = 0.5,
        mode: str = "gaussian",
        blend: str = "logits",
        skip_background: bool = True,
        subsets: Sequence[Sequence[bool]] | None = None,
        output: str = "labels",
        memory_limit: int = 2**30,
        sigma_scale: Sequence[float] | float = 0.125,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_window_batch(sw_batch_size)
        self.roi_size = roi_size
        self.sw_batch_size = sw_batch_size
        self.overlap = overlap
        self.mode = look_up_option(mode, BlendMode)
        self.blend = look_up_option(blend, ("logits", "probabilities"))
        self.skip_background = skip_background
        self.subsets = None if subsets is None else [tuple(bool(flag) for flag in mask) for mask in subsets]
        self.output = look_up_option(output, ("labels", "scores"))
        self.memory_limit = memory_limit
        self.sigma_scale = sigma_scale
        self.sw_device = sw_device
        self.device = device

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Any],
        present_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> dict[Mask, Tensor]:
        """All results of :meth:`sweep` by mask."""
        return dict(self.sweep(inputs, network, present_mask))

    @torch.no_grad()
    def sweep(
        self, inputs: Tensor, network: Callable[..., Any], present_mask: Tensor | None = None
    ) -> Iterator[tuple[Mask, Tensor]]:
        """Yield (mask, prediction) for each subset, as groups of subsets are finished.

        Args:
            inputs: image (B, M, ...).
            network: a :class:`ModalityNetwork`, or a method or wrapper that holds one.
            present_mask: bool (B, M), (1, M) or (M,); None: what the volume shows.

        Returns:
            predictions on the grid of ``inputs``, with its meta data. Subsets of what *every* sample of the batch has
            are done; use batches of one where samples differ.

        Raises:
            TypeError: ``network`` holds no :class:`ModalityNetwork`.
            ValueError: a mask of the wrong length, or no subset that the samples have.
        """
        net = find_network(network)
        if net is None:
            raise TypeError(f"the subset sweep needs a ModalityNetwork with encode and decode, got {type(network)}")
        present = volume_presence(inputs, present_mask)
        masks = self._masks(present)
        image = without_absent(inputs, present).as_subclass(Tensor)
        volumes = image.shape[0]
        sliced = inputs.ndim == net.spatial_dims + 3
        if sliced:
            present = present.repeat_interleave(image.shape[-1], dim=0)
            image = slices_as_batch(image)
        run = _Sweep(self, net, image, present)
        for start in range(0, len(masks), run.subsets_at_once):
            group = masks[start : start + run.subsets_at_once]
            results = run(group)
            for mask in group:
                result = results.pop(0)
                yield mask, with_meta(slices_to_volume(result, volumes) if sliced else result, inputs)

    def _masks(self, present: Tensor) -> list[Mask]:
        count = present.shape[1]
        wanted = self.subsets
        if wanted is None:
            wanted = [mask for mask in product((False, True), repeat=count) if any(mask)]
        for mask in wanted:
            if len(mask) != count or not any(mask):
                raise ValueError(f"subset {mask} must be a non-empty mask of {count} modalities")
        common = present.all(dim=0).tolist()
        masks = [mask for mask in wanted if all(c or not m for m, c in zip(mask, common, strict=True))]
        if not masks:
            raise ValueError(f"no subset to do: every sample has the modalities {common}, wanted are {wanted}")
        return masks


class _Sweep:
    """One volume's sweep: window grid, blending weights, and the slab that accumulates."""

    def __init__(self, options: SubsetSweepInferer, network: ModalityNetwork, image: Tensor, present: Tensor) -> None:
        self.options = options
        self.network = network
        self.present = present
        self.classes = network.out_channels
        self.image_size = tuple(image.shape[2:])
        self.window = window_size(options.roi_size, self.image_size, network.stride)
        padding: list[int] = []
        for roi, size in zip(reversed(self.window), reversed(self.image_size), strict=True):
            missing = max(roi - size, 0)
            padding += [missing // 2, missing - missing // 2]
        self.offset = [padding[-2 - 2 * axis] for axis in range(len(self.window))]
        self.image = F.pad(image, padding) if any(padding) else image
        self.padded_size = tuple(self.image.shape[2:])
        self.sw_device = torch.device(options.sw_device or image.device)
        self.device = torch.device(options.device or image.device)
        self.weights = compute_importance_map(
            self.window, options.mode, options.sigma_scale, self.device, torch.float32
        ).as_subclass(Tensor)
        # the axis along which a slab as thick as a window is the smallest part of the volume
        self.axis = max(range(len(self.window)), key=lambda a: self.padded_size[a] / self.window[a])
        self.slab_size = list(self.padded_size)
        self.slab_size[self.axis] = self.window[self.axis]
        places = window_grid(self.padded_size, self.window, options.overlap)
        self.rounds: dict[int, list[tuple[slice, ...]]] = {}
        for place in sorted(places, key=lambda p: int(p[self.axis].start)):
            self.rounds.setdefault(int(place[self.axis].start), []).append(place)
        voxels = int(torch.tensor(self.padded_size).prod())
        per_subset = 4 * self.classes * int(torch.tensor(self.slab_size).prod())
        per_subset += voxels if options.output == "labels" else 4 * self.classes * voxels
        self.subsets_at_once = max(1, int(options.memory_limit // (per_subset * image.shape[0])))
        self.window_batch = 0  # until the first windows are done

    def __call__(self, masks: list[Mask]) -> list[Tensor]:
        """Predictions (B, 1 or K, ...) for ``masks``, in order."""
        batch = self.image.shape[0]
        self.masks = torch.tensor(masks, device=self.sw_device)
        self.slab = torch.zeros([batch, len(masks), self.classes, *self.slab_size], device=self.device)
        self.total = torch.zeros(self.slab_size, device=self.device)
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)
        labels = self.options.output == "labels"
        shape = [batch, len(masks), 1 if labels else self.classes, *self.padded_size]
        result = torch.empty(shape, dtype=torch.uint8 if labels else torch.float32, device=self.device)
        origin = 0
        for start, places in self.rounds.items():
            self._finish(result, origin, start - origin)
            origin = start
            pairs = [(sample, place) for sample in range(batch) for place in places]
            for i in range(0, len(pairs), self._windows()):
                self._add(pairs[i : i + self._windows()], origin)
        self._finish(result, origin, self.padded_size[self.axis] - origin)
        del self.slab, self.total
        if not bool(self.finite):  # as labels they would look like any other
            raise ValueError("the network computes NaN or Inf; look for voxels of extreme value in the images")
        for axis, (offset, size) in enumerate(zip(self.offset, self.image_size, strict=True)):
            result = result.narrow(axis + 3, offset, size)
        return [result[:, i] for i in range(len(masks))]

    def _windows(self) -> int:
        """Windows of one call, measured once per volume and after its accumulators are there."""
        if self.window_batch == 0 and not isinstance(self.options.sw_batch_size, str):
            self.window_batch = self.options.sw_batch_size
        if self.window_batch == 0:
            everything = torch.ones(1, self.network.modalities, dtype=torch.bool, device=self.sw_device)

            def run(windows: int) -> Tensor:
                empty = torch.zeros(windows, self.network.modalities, *self.window, device=self.sw_device)
                mask = everything.expand(windows, -1)
                return self._scores(self.network.prepare(self.network.encode(empty, mask)), mask)

            self.window_batch = windows_that_fit(self.sw_device, run)
        return self.window_batch

    def _finish(self, result: Tensor, origin: int, planes: int) -> None:
        """Write the first ``planes`` planes of the slab, which no later window reaches, and move the slab on."""
        if planes == 0:
            return
        total = self.total.narrow(self.axis, 0, planes)
        rest = self.slab_size[self.axis] - planes
        for scores, target in zip(self.slab.flatten(0, 1), result.flatten(0, 1), strict=True):  # one at a time: memory
            done = scores.narrow(self.axis + 1, 0, planes)
            target = target.narrow(self.axis + 1, origin, planes)
            self.finite &= torch.isfinite(done).all()
            if self.options.output == "labels":
                target.copy_(done.argmax(dim=0, keepdim=True))  # the weights are positive: no need to divide
            else:
                torch.div(done, total, out=target)
            _move_on(scores, self.axis + 1, planes, rest)
        _move_on(self.total, self.axis, planes, rest)

    def _add(self, pairs: list[tuple[int, tuple[slice, ...]]], origin: int) -> None:
        """Predict the windows ``pairs`` (sample, place) from every subset and add them to the slab."""
        windows = torch.stack([self.image[sample][(slice(None), *place)] for sample, place in pairs])
        windows = windows.to(self.sw_device)
        rows = self.present[[sample for sample, _ in pairs]].to(self.sw_device) & self.masks.any(dim=0)
        shown = foreground(windows) & rows if self.options.skip_background else rows
        regions = []
        for sample, place in pairs:
            near = list(place)
            near[self.axis] = slice(place[self.axis].start - origin, place[self.axis].stop - origin)
            if sample == 0:
                self.total[tuple(near)] += self.weights
            regions.append((sample, tuple(near)))
        active = (shown[:, None] & self.masks[None]).any(dim=2)  # (windows, subsets)
        background = self.weights * (1.0 if self._probabilities else BACKGROUND_LOGIT)
        for i, subset in torch.nonzero(~active).tolist():
            sample, region = regions[i]
            self.slab[sample, subset, 0][region] += background
        encoded = torch.nonzero(active.any(dim=1)).flatten()
        if encoded.numel() == 0:
            return
        chosen = windows if encoded.numel() == len(pairs) else windows[encoded]
        features = self.network.prepare(self.network.encode(chosen, rows[encoded]))
        for which, subset_ids, scores in self._decoded(features, active[encoded]):
            for row, subset, score in zip(which, subset_ids, scores, strict=True):
                sample, region = regions[int(encoded[row])]
                self.slab[sample, subset][(slice(None), *region)].addcmul_(score.to(self.device), self.weights)

    def _decoded(self, features: ModalityFeatures, active: Tensor) -> Iterator[tuple[list[int], list[int], Tensor]]:
        """Yield (rows, subsets, scores) for the pairs that ``active`` (rows, subsets) marks, subset by subset."""
        subsets, rows = torch.nonzero(active.T, as_tuple=True)
        every = torch.arange(active.shape[0], device=active.device)
        at_once = max(2, self._windows())  # also for a lone row
        for row, subset in zip(rows.split(at_once), subsets.split(at_once), strict=True):
            shared = None if torch.equal(row, every) else row
            yield row.tolist(), subset.tolist(), self._scores(features, self.masks[subset], shared)

    @property
    def _probabilities(self) -> bool:
        return self.options.blend == "probabilities"

    def _scores(self, features: ModalityFeatures, masks: Tensor, rows: Tensor | None = None) -> Tensor:
        logits = self.network.decode(features, masks, rows).logits.float()
        return logits.softmax(dim=1) if self._probabilities else logits


def _move_on(slab: Tensor, axis: int, planes: int, rest: int) -> None:
    """Drop the first ``planes`` planes along ``axis``, in place; zeros come in behind the ``rest``."""
    if rest > 0:
        slab.narrow(axis, 0, rest).copy_(slab.narrow(axis, planes, rest).clone())
    slab.narrow(axis, rest, planes).zero_()
