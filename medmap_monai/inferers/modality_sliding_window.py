"""Sliding-window inference in which every window gets the modality mask of its own sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from monai.utils import look_up_option
from torch import Tensor

from medmap_monai.inferers.unwrap import network_facts, unwrap_network
from medmap_monai.inferers.window_batch import AUTO, ON_CPU, check_window_batch, windows_that_fit
from medmap_monai.inferers.window_walk import Decision, WalkOptions, WindowWalk, blended
from medmap_monai.inferers.windows import foreground


class ModalitySlidingWindowInferer(SlidingWindowInferer):
    """MONAI's sliding window for networks that take ``(image, modality_mask)``.

    Each window meets its own sample's row of the mask, which MONAI's function, handing the same arguments to every
    batch of windows, cannot do. Presence is decided once per volume, never per window, where background would look
    like an absent modality. The network sees plain tensors; the output is a ``MetaTensor`` where the input is one.
    The windows are those of :class:`~medmap_monai.inferers.window_walk.WindowWalk`, blended to the same numbers as
    MONAI's.

    Windows in which no available modality shows anything are background and cost nothing. A network with two spatial
    dimensions is run on the slices of a volume along its last axis.

    Args:
        roi_size: window in voxels; an entry that is not positive takes the volume's size. Rounded up to the stride
            of the network; a smaller volume is padded.
        sw_batch_size: windows per network call; on a CPU at least 2, as batches of one are slow there. ``auto``: 2 on a
            CPU; on a GPU what its free memory holds, measured with the first volume of each size.
        overlap: share of the window that neighbours share.
        mode: ``gaussian`` (clinical protocol) or ``constant`` (legacy).
        blend: what overlapping windows average: ``logits``, or ``probabilities`` (legacy; the output then holds
            probabilities).
        skip_background: skip background windows.
        decision: what becomes of the blended scores, such as
            :class:`~medmap_monai.inferers.expected_dice.ExpectedDiceDecision`; None: the largest score decides.
        kwargs: see ``monai.inferers.SlidingWindowInferer``; those that say how it buffers and caches change nothing.

    Example:
        >>> from medmap_monai.networks.unet import ModalityUNet
        >>> net = ModalityUNet(3, in_channels=2, out_channels=3, channels=(4, 8), deep_supervision=0).eval()
        >>> image = torch.rand(1, 2, 20, 24, 16)
        >>> ModalitySlidingWindowInferer((16, 16, 16))(image, net, torch.tensor([[True, False]])).shape
        torch.Size([1, 3, 20, 24, 16])
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int,
        sw_batch_size: int | str = 2,
        overlap: Sequence[float] | float = 0.5,
        mode: str = "gaussian",
        blend: str = "logits",
        skip_background: bool = True,
        decision: Decision | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("with_coord", True) is not True:
            raise ValueError("ModalitySlidingWindowInferer needs the window coordinates: with_coord must be True")
        check_window_batch(sw_batch_size)
        self.automatic = sw_batch_size == AUTO
        size = ON_CPU if isinstance(sw_batch_size, str) else sw_batch_size
        super().__init__(roi_size, size, overlap, mode, with_coord=True, **kwargs)
        self._fitting: dict[Any, int] = {}
        self.blend = look_up_option(blend, ("logits", "probabilities"))
        self.skip_background = skip_background
        self.decision = decision

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Any],
        modality_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Logits (or probabilities, or scores of the decision) (B, K, ...), at least float32, for (B, M, ...).

        Args:
            inputs: image; what an absent channel holds has no influence.
            network: a network, or a method, DDP wrapper or compiled network that holds one.
            modality_mask: bool (B, M), (1, M) or (M,); None: what the volume shows.
            args, kwargs: passed on to the network.
        """
        facts = network_facts(network)
        called = unwrap_network(network)
        device = kwargs.pop("device", self.device)
        for name in ("buffer_steps", "buffer_dim"):  # MONAI takes them here too
            kwargs.pop(name, None)
        if device is None and self.cpu_thresh is not None and inputs.shape[2:].numel() > self.cpu_thresh:
            device = "cpu"
        options = WalkOptions.of(
            self, device=device, padding_mode=self.padding_mode, cval=self.cval, progress=self.progress
        )
        walk = WindowWalk(options, inputs, modality_mask, facts)
        at_once = self._windows_that_fit(walk, called) if self.automatic else self.sw_batch_size
        classes = 0 if facts is None else facts.out_channels

        def answer(windows: Tensor, present: Tensor) -> Tensor:
            logits: Tensor = called(windows, present, *args, **kwargs)
            return logits

        return walk(_OfTheNetwork(answer, classes, at_once, options.probabilities, self.skip_background))[0]

    def _windows_that_fit(self, walk: WindowWalk, called: Callable[..., Any]) -> int:
        device, modalities = walk.sw_device, walk.image.shape[1]
        key = (device, walk.window, modalities, torch.is_autocast_enabled(device.type), id(called))
        if key not in self._fitting:

            def run(windows: int) -> Any:
                empty = torch.zeros(windows, modalities, *walk.window, device=device)
                with torch.no_grad():
                    return called(empty, torch.ones(empty.shape[:2], dtype=torch.bool, device=device))

            self._fitting[key] = windows_that_fit(device, run)
        return self._fitting[key]


class _OfTheNetwork:
    """One result: the network's answer to what each sample has."""

    def __init__(
        self,
        called: Callable[[Tensor, Tensor], Tensor],
        classes: int,
        at_once: int,
        probabilities: bool,
        skip_background: bool,
    ) -> None:
        self.called = called
        self.classes = classes
        self.windows = at_once
        self.probabilities = probabilities
        self.skip_background = skip_background

    def at_once(self) -> int:
        return self.windows

    def __call__(self, windows: Tensor, present: Tensor) -> Iterator[tuple[int, int, Tensor | None]]:
        shown = torch.ones(len(windows), dtype=torch.bool, device=windows.device)
        if self.skip_background:
            shown = foreground(windows).any(dim=1)  # absent channels are zero already
        flags = shown.tolist()
        scores: Iterator[Tensor] = iter(())
        if all(flags):
            scores = iter(self._scores(windows, present))
        elif any(flags):
            scores = iter(self._scores(windows[shown], present[shown]))
        elif self.classes == 0:
            self._scores(windows[:1], present[:1])
        for row, flag in enumerate(flags):
            yield row, 0, next(scores) if flag else None

    def _scores(self, windows: Tensor, present: Tensor) -> Tensor:
        scores = blended(self.called(windows, present), self.probabilities)
        self.classes = int(scores.shape[1])
        return scores
