"""Sliding-window inference in which every window gets the modality mask of its own sample."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from monai.utils import look_up_option
from torch import Tensor

from medmap_monai.inferers.unwrap import network_facts, unwrap_network
from medmap_monai.inferers.window_batch import AUTO, ON_CPU, check_window_batch, windows_that_fit
from medmap_monai.inferers.windows import (
    background_like,
    foreground,
    slices_as_batch,
    slices_to_volume,
    volume_presence,
    window_size,
    with_meta,
    without_absent,
)


class ModalitySlidingWindowInferer(SlidingWindowInferer):
    """MONAI's sliding window for networks that take ``(image, modality_mask)``.

    The parent hands the same arguments to each batch of windows, so a mask (B, M) would meet the wrong windows; here
    each window is paired with its sample's row by the coordinates that the parent passes. Presence is decided once
    per volume, never per window, where background would look like an absent modality. The network sees plain
    tensors; the output is a ``MetaTensor`` where the input is one.

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
        kwargs: see ``monai.inferers.SlidingWindowInferer``.

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

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Any],
        modality_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Logits (or probabilities) (B, K, ...) for ``inputs`` (B, M, ...).

        Args:
            inputs: image; what an absent channel holds has no influence.
            network: a network, or a method, DDP wrapper or compiled network that holds one.
            modality_mask: bool (B, M), (1, M) or (M,); None: what the volume shows.
            args, kwargs: passed on to the network.
        """
        mask = volume_presence(inputs, modality_mask)
        image = without_absent(inputs, mask)
        found = network_facts(network)
        if found is not None and inputs.ndim == found.spatial_dims + 3:
            rows = mask.repeat_interleave(inputs.shape[-1], dim=0)
            volume = slices_to_volume(self(slices_as_batch(image), network, rows, *args, **kwargs), inputs.shape[0])
            return with_meta(volume, inputs)
        called = unwrap_network(network)
        classes = 0 if found is None else found.out_channels  # unknown until the first answer of other callables

        def predict(windows: Tensor, coordinates: list[list[slice]], *args: Any, **kwargs: Any) -> Tensor:
            nonlocal classes
            samples = torch.tensor([c[0].start for c in coordinates], device=mask.device)
            rows = mask.index_select(0, samples).to(windows.device)
            if not self.skip_background:
                return self._blended(called(windows, rows, *args, **kwargs))
            keep = foreground(windows).any(dim=1)  # absent channels are zero already
            if bool(keep.all()):
                return self._blended(called(windows, rows, *args, **kwargs))
            if bool(keep.any()):
                answer = self._blended(called(windows[keep], rows[keep], *args, **kwargs))
                classes = int(answer.shape[1])
            elif classes == 0:
                classes = int(called(windows[:1], rows[:1], *args, **kwargs).shape[1])
            whole = background_like([len(coordinates), classes, *windows.shape[2:]], self._probabilities, windows)
            if bool(keep.any()):
                whole[keep] = answer
            return whole

        runner = copy.copy(self)  # the window depends on the call; a shared inferer may be called from several threads
        runner.roi_size = window_size(self.roi_size, inputs.shape[2:], 1 if found is None else found.stride)
        if self.automatic:
            runner.sw_batch_size = self._windows_that_fit(inputs, runner.roi_size, called)
        if self.roi_weight_map is not None and tuple(self.roi_weight_map.shape) != runner.roi_size:
            runner.roi_weight_map = None
        return super(ModalitySlidingWindowInferer, runner).__call__(image, predict, *args, **kwargs)  # type: ignore

    def _windows_that_fit(self, inputs: Tensor, window: tuple[int, ...], called: Callable[..., Any]) -> int:
        device = torch.device(self.sw_device or inputs.device)
        key = (device, window, inputs.shape[1], torch.is_autocast_enabled(device.type), id(called))
        if key not in self._fitting:

            def run(windows: int) -> Any:
                empty = torch.zeros(windows, inputs.shape[1], *window, device=device)
                with torch.no_grad():
                    return called(empty, torch.ones(empty.shape[:2], dtype=torch.bool, device=device))

            self._fitting[key] = windows_that_fit(device, run)
        return self._fitting[key]

    @property
    def _probabilities(self) -> bool:
        return self.blend == "probabilities"

    def _blended(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        return logits.softmax(dim=1) if self._probabilities else logits
