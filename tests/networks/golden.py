"""Networks with formula weights, and the figures that the published code computes with them.

Weights, inputs and labels come from an integer hash of (name, index), so every machine recreates the same float32
numbers; only the published results are stored (``tests/golden/README.md`` says where from).
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medmap_monai.checkpoints.key_maps import published_keys
from medmap_monai.networks.base import ModalityNetwork

COMMITTED = Path(__file__).parents[1] / "golden"
SHARED = Path(__file__).parents[3] / "shared" / "golden"


def hash_unit(key: str, count: int) -> NDArray[np.float64]:
    """``count`` numbers in [-1, 1); number i depends on (key, i) alone."""
    low = np.uint64(0xFFFFFFFF)
    z = (np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B1) + np.uint64(zlib.crc32(key.encode()))) & low
    for multiplier in (0x85EBCA6B, 0xC2B2AE35):
        z ^= z >> np.uint64(16 if multiplier == 0x85EBCA6B else 13)
        z = (z * np.uint64(multiplier)) & low
    z ^= z >> np.uint64(16)
    return z.astype(np.float64) / 2.0**32 * 2.0 - 1.0


def formula_parameter(published_key: str, shape: tuple[int, ...]) -> Tensor:
    """The value of a parameter, from its name in the published state dict and its shape there."""
    unit = hash_unit(published_key, int(np.prod(shape)))
    last = published_key.rpartition(".")[2]
    if len(shape) == 1:
        value = 1.0 + 0.2 * unit if last == "weight" else 0.2 * unit
    elif last.endswith("pos"):
        value = 0.5 * unit
    elif last == "fusion":
        value = np.sqrt(3.0) * unit
    else:
        value = np.sqrt(3.0 / np.prod(shape[1:])) * unit
    return torch.from_numpy(value.reshape(shape).astype(np.float32))


def formula_input(batch: int, modalities: int, size: int) -> Tensor:
    """(B, M, S, S, S): smooth waves and hash noise."""
    axes = [np.arange(n) for n in (batch, modalities, size, size, size)]
    b, m, i, j, k = np.meshgrid(*axes, indexing="ij")
    wave = np.sin(0.07 * (m + 1) * i + 0.05 * (m + 2) * j + 0.09 * k + 0.5 * m + 1.3 * b)
    return torch.from_numpy((wave + 0.5 * hash_unit("input", b.size).reshape(b.shape)).astype(np.float32))


def formula_labels(batch: int, size: int) -> Tensor:
    """(B, 1, S, S, S) int64 classes 0..3: nested balls, the centre shifted per sample."""
    g = (np.arange(size) + 0.5) / size
    i, j, k = np.meshgrid(g, g, g, indexing="ij")
    maps = []
    for b in range(batch):
        radius = np.sqrt((i - 0.5 - 0.05 * b) ** 2 + (j - 0.45) ** 2 + (k - 0.55 + 0.04 * b) ** 2)
        label = np.zeros((size,) * 3, np.int64)
        for limit, value in ((0.38, 2), (0.25, 1), (0.15, 3)):
            label[radius < limit] = value
        maps.append(label)
    return torch.from_numpy(np.stack(maps))[:, None]


def with_formula_weights(network: ModalityNetwork) -> ModalityNetwork:
    """``network`` in eval mode, every parameter set to the formula of its published name."""
    keys = published_keys(network)
    state = {key: formula_parameter(keys[key], tuple(value.shape)) for key, value in network.state_dict().items()}
    network.load_state_dict(state)
    return network.eval()


def golden(name: str) -> dict[str, NDArray[Any]]:
    """The arrays of a committed golden file, or of the full set where that lies beside the repository."""
    for folder in (COMMITTED, SHARED):
        if (folder / name).is_file():
            with np.load(folder / name) as data:
                return dict(data)
    raise FileNotFoundError(name)


def published_shapes(name: str) -> dict[str, list[int]]:
    """{published key: shape} of ``rfnet``, ``mmformer`` or ``m2ftrans``, from the full golden set."""
    return json.loads((SHARED / f"{name}_passion_keys.json").read_text())


def statistics(x: Tensor) -> NDArray[np.float64]:
    """Mean, population standard deviation, minimum and maximum."""
    x = x.detach().double()
    return np.array([x.mean(), x.std(correction=0), x.min(), x.max()])
