"""Segment a volume from every subset of its modalities, encoding each window once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import BlendMode, look_up_option
from torch import Tensor

from medmap_monai.inferers.blend import NOT_FINITE
from medmap_monai.inferers.unwrap import find_network, network_facts
from medmap_monai.inferers.window_batch import check_window_batch, windows_that_fit
from medmap_monai.inferers.window_walk import Decision, WalkOptions, WindowWalk, blended
from medmap_monai.inferers.windows import foreground
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
        roi_size, sw_batch_size, overlap, mode, blend, skip_background, decision: see
            :class:`ModalitySlidingWindowInferer`. A decision needs the scores of whole volumes, also for labels.
        subsets: masks (M,) to do; None: every non-empty subset.
        output: ``labels``: class indices uint8 (B, 1, ...); ``scores``: blended logits or probabilities (B, K, ...).
        memory_limit: bytes for accumulators and outputs of the subsets that are done together; at least one subset
            is done at a time.
        kwargs: ``sigma_scale``, ``sw_device``, ``device``, see ``monai.inferers.SlidingWindowInferer``.

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
        decision: Decision | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        unknown = sorted(set(kwargs) - {"sigma_scale", "sw_device", "device"})
        if unknown:
            raise TypeError(
                f"unknown arguments {unknown}; allowed beside those named are sigma_scale, sw_device, device"
            )
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
        self.sigma_scale: Sequence[float] | float = kwargs.get("sigma_scale", 0.125)
        self.sw_device: torch.device | str | None = kwargs.get("sw_device")
        self.device: torch.device | str | None = kwargs.get("device")
        self.decision = decision

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
        walk = WindowWalk(WalkOptions.of(self), inputs, present_mask, network_facts(net))
        masks = self._masks(walk.presence)
        labels = self.output == "labels"
        each = walk.bytes_of_a_result(net.out_channels, labels)
        group = max(1, int(self.memory_limit // each))
        scores = _OfSubsets(self, net, walk)
        for start in range(0, len(masks), group):
            scores.masks = torch.tensor(masks[start : start + group], device=walk.sw_device)
            results = walk(scores, len(scores.masks), labels)
            for mask in masks[start : start + group]:
                result = results.pop(0)
                if not labels and not bool(torch.isfinite(result).all()):
                    raise ValueError(NOT_FINITE)
                yield mask, result

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


class _OfSubsets:
    """The results of some subsets, from one encoding of each window."""

    masks: Tensor  # (results, M)

    def __init__(self, options: SubsetSweepInferer, network: ModalityNetwork, walk: WindowWalk) -> None:
        self.network = network
        self.classes = network.out_channels
        self.walk = walk
        self.skip_background = options.skip_background
        self.windows = options.sw_batch_size if isinstance(options.sw_batch_size, int) else 0  # until it is measured

    def at_once(self) -> int:
        """Windows of one call, measured once per volume and after its accumulators are there."""
        if self.windows == 0:
            device = self.walk.sw_device
            everything = torch.ones(1, self.network.modalities, dtype=torch.bool, device=device)

            def run(windows: int) -> Tensor:
                empty = torch.zeros(windows, self.network.modalities, *self.walk.window, device=device)
                mask = everything.expand(windows, -1)
                return self._scores(self.network.prepare(self.network.encode(empty, mask)), mask)

            self.windows = windows_that_fit(device, run)
        return self.windows

    def __call__(self, windows: Tensor, present: Tensor) -> Iterator[tuple[int, int, Tensor | None]]:
        """First the background, then subset by subset."""
        rows = present & self.masks.any(dim=0)
        shown = foreground(windows) & rows if self.skip_background else rows
        active = (shown[:, None] & self.masks[None]).any(dim=2)  # (windows, subsets)
        for row, subset in torch.nonzero(~active).tolist():
            yield row, subset, None
        encoded = torch.nonzero(active.any(dim=1)).flatten()
        if encoded.numel() == 0:
            return
        chosen = windows if encoded.numel() == len(windows) else windows[encoded]
        features = self.network.prepare(self.network.encode(chosen, rows[encoded]))
        names = encoded.tolist()
        for which, subset_ids, scores in self._decoded(features, active[encoded]):
            for row, subset, score in zip(which, subset_ids, scores, strict=True):
                yield names[row], subset, score

    def _decoded(self, features: ModalityFeatures, active: Tensor) -> Iterator[tuple[list[int], list[int], Tensor]]:
        """Yield (rows, subsets, scores) for the pairs that ``active`` (rows, subsets) marks, subset by subset."""
        subsets, rows = torch.nonzero(active.T, as_tuple=True)
        every = torch.arange(active.shape[0], device=active.device)
        at_once = max(2, self.at_once())  # also for a lone row
        for row, subset in zip(rows.split(at_once), subsets.split(at_once), strict=True):
            shared = None if torch.equal(row, every) else row
            yield row.tolist(), subset.tolist(), self._scores(features, self.masks[subset], shared)

    def _scores(self, features: ModalityFeatures, masks: Tensor, rows: Tensor | None = None) -> Tensor:
        return blended(self.network.decode(features, masks, rows).logits, self.walk.options.probabilities)
