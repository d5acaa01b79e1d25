"""Find the deployed network inside whatever a training or evaluation engine holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from medmap_monai.networks.base import ModalityNetwork

_WRAPPERS = ("module", "network", "_orig_mod")  # DistributedDataParallel, Method, torch.compile


def find_network(network: Any) -> ModalityNetwork | None:
    """The :class:`ModalityNetwork` in ``network`` or below ``.module``, ``.network`` and the like; None without one."""
    seen: set[int] = set()
    while isinstance(network, nn.Module) and id(network) not in seen:
        if isinstance(network, ModalityNetwork):
            return network
        seen.add(id(network))
        # not by getattr: torch.compile's wrapper forwards unknown attributes to the module that it wraps
        children = dict(network.named_children())
        network = next((children[name] for name in _WRAPPERS if name in children), None)
    return None


class NetworkFacts(NamedTuple):
    """What a sliding window must know: spatial dimensions, classes, and the stride that windows are multiples of."""

    spatial_dims: int
    out_channels: int
    stride: int


def network_facts(network: Any) -> NetworkFacts | None:
    """The facts of the :class:`ModalityNetwork` in ``network``, or of a scripted one, which keeps them; else None."""
    found: Any = find_network(network)
    if found is None and isinstance(network, torch.jit.ScriptModule):
        found = network
    values = [getattr(found, name, None) for name in NetworkFacts._fields]
    known = [int(value) for value in values if value is not None]
    return NetworkFacts(*known) if len(known) == len(values) else None


def unwrap_network(network: Callable[..., Any]) -> Callable[..., Any]:
    """What to call for logits ``(image, modality_mask)``.

    A method or a DDP wrapper takes other arguments (and reduces gradients), so its network is called instead. A
    compiled network is called as it is, and so is anything that holds no :class:`ModalityNetwork`: an exported
    graph, a plain function.
    """
    found = find_network(network)
    if found is None or getattr(network, "_orig_mod", None) is found:
        return network
    inner = getattr(network, "network", None)
    if inner is not None and getattr(inner, "_orig_mod", None) is found:
        return inner
    return found
