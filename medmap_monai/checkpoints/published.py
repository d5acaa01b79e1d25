"""Load the weights that the authors of RFNet, mmFormer, M2FTrans and PASSION published."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medmap_monai.checkpoints.key_maps import published_keys
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.blocks.transformer import resize_positions
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer

_PREFIX = "module."  # DataParallel's, on every published key


def load_published_weights(
    network: ModalityNetwork, source: str | os.PathLike[str] | Mapping[str, Any]
) -> ModalityNetwork:
    """Fill ``network`` with published weights.

    The network takes its channels in the published order FLAIR, T1ce, T1, T2. Positional embeddings (and M2FTrans's
    fusion tokens) of another patch size are interpolated to the network's ``position_size``.

    Args:
        network: an ``RFNet``, ``MMFormer`` or ``M2FTrans`` whose widths are those of the weights.
        source: a checkpoint file, or what it holds: a state dict, bare or under ``state_dict``, with or without the
            prefix ``module.``. Files are read with ``weights_only=True``.

    Returns:
        the same network.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is no checkpoint, or keys are missing, unexpected or of the wrong shape; one message
            names them all, and the network is left as it was.
        TypeError: when there are no published weights for this kind of network.
    """
    name = "the state dict" if isinstance(source, Mapping) else str(source)
    published = _state_dict(source if isinstance(source, Mapping) else _read(source), name)
    keys = published_keys(network)
    own = network.state_dict()
    state: dict[str, Tensor] = {}
    problems: list[str] = []
    for key, value in own.items():
        if keys[key] not in published:
            problems.append(f"missing: {keys[key]}")
            continue
        found = published[keys[key]]
        fitted = _fit(network, key, found, value)
        if fitted is None:
            problems.append(f"shape: {keys[key]} is {list(found.shape)}, the network needs {list(value.shape)}")
        else:
            state[key] = fitted
    problems += [f"unexpected: {key}" for key in published if key not in set(keys.values())]
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(
            f"{name} does not fit {type(network).__name__}: {len(problems)} of {len(own)} entries differ\n  {listed}"
        )
    network.load_state_dict(state)
    return network


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a checkpoint that can be read safely: {error}") from error


def _state_dict(content: Any, name: str) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{name} holds no state dict: expected tensors by name, bare or under 'state_dict'")
    return {key.removeprefix(_PREFIX): value for key, value in content.items()}


def _fit(network: ModalityNetwork, key: str, found: Tensor, wanted: Tensor) -> Tensor | None:
    """``found`` in the shape of ``wanted``: itself, without trailing ones, or interpolated; None when it cannot be."""
    if found.shape == wanted.shape:
        return found
    # the descriptor networks of RFNet are 1x1x1 convolutions on a single position there, linear layers here
    if found.numel() == wanted.numel() and found.shape[: wanted.ndim] == wanted.shape:
        return found.reshape(wanted.shape)
    grid = _token_grid(network, key)
    if grid is None or found.ndim != 3 or found.shape[2] != wanted.shape[2]:
        return None
    blocks = wanted.shape[1] // math.prod(grid)
    edge = round((found.shape[1] / blocks) ** (1 / len(grid)))
    if blocks * edge ** len(grid) != found.shape[1]:
        return None
    return torch.cat([resize_positions(b, [edge] * len(grid), grid) for b in found.chunk(blocks, dim=1)], dim=1)


def _token_grid(network: ModalityNetwork, key: str) -> list[int] | None:
    """The grid that a parameter with one row per token lies on; None for other parameters."""
    if isinstance(network, MMFormer) and key.endswith(".positions"):
        return network.position_grid
    if isinstance(network, M2FTrans) and key in ("bottleneck.positions", "bottleneck.fusion_tokens"):
        return network.bottleneck.grid
    return None
