"""Encoder features of complete studies, for the t-SNE picture and the modality gap."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from medmap_monai.inferers.windows import window_size
from medmap_monai.metrics.effective_rank import effective_rank, spatial_sd
from medmap_monai.metrics.modality_gap import ModalityGap, modality_gap
from medmap_monai.modalities import Modalities
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.utils.files import atomic_path

TOKENS = "tokens"


class EncoderFeatures(NamedTuple):
    """Features of every modality at the same positions.

    modalities: names in the order of the first axis.
    levels: by name (``level0`` = finest, ..., ``tokens`` where a network has them): float32 (M, n, C).
    case_ids: by level name: the case of each position, (n,).
    """

    modalities: tuple[str, ...]
    levels: dict[str, NDArray[np.float32]]
    case_ids: dict[str, NDArray[np.str_]]


class LevelGap(NamedTuple):
    """One level's modality gap with its collapse check (means over modalities) and the number of positions."""

    level: str
    positions: int
    gap: ModalityGap
    effective_rank: float
    spatial_sd: float


@torch.no_grad()
def collect_features(
    network: ModalityNetwork,
    samples: Iterable[Mapping[str, Any]],
    modalities: Sequence[str],
    roi_size: Sequence[int] | int,
    positions: int = 100,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> EncoderFeatures:
    """Encode one window per complete study and keep random foreground positions of every level.

    The window has the size that the network was trained with (instance norms see what they saw in training) and sits
    on the centre of the foreground. Studies that lack a modality are passed over: positions are compared pairwise.

    Args:
        network: the network, with its weights.
        samples: ``{"case_id", "image" (M, ...), "present_mask" (M,)}``.
        modalities: names in channel order.
        roi_size: window in voxels.
        positions: positions per study and level (fewer where a level has fewer foreground positions).
        seed: of the choice of positions; a study's positions depend on it and on the study's place alone.
        device: where to run.

    Raises:
        ValueError: when no sample is complete.
    """
    network = network.eval().to(device)
    levels: dict[str, list[NDArray[np.float32]]] = {}
    case_ids: dict[str, list[str]] = {}
    for number, sample in enumerate(samples):
        present = torch.as_tensor(sample["present_mask"]).as_subclass(Tensor).bool()
        if not bool(present.all()):
            continue
        image = _window(torch.as_tensor(sample["image"]).as_subclass(Tensor), roi_size, network).to(device)
        features = network.encode(image, present[None].to(device))
        maps = {f"level{i}": level for i, level in enumerate(features.pyramid)}
        if features.tokens is not None:
            maps[TOKENS] = features.tokens
        brain = (image != 0).any(dim=1, keepdim=True).float()
        for index, (name, level) in enumerate(maps.items()):
            rng = np.random.default_rng((seed, number, index))
            chosen = _choose(level, brain, positions, rng)
            levels.setdefault(name, []).append(chosen)
            case_ids.setdefault(name, []).extend([str(sample["case_id"])] * chosen.shape[1])
    if not levels:
        raise ValueError(f"no study has all of {list(modalities)}: features are compared at the same positions")
    return EncoderFeatures(
        Modalities(tuple(modalities)).names,
        {name: np.concatenate(parts, axis=1) for name, parts in levels.items()},
        {name: np.array(ids) for name, ids in case_ids.items()},
    )


def gap_per_level(features: EncoderFeatures) -> list[LevelGap]:
    """Modality gap, effective rank and spatial deviation of every level, finest first."""
    rows = []
    for name, values in features.levels.items():
        maps = torch.from_numpy(values)
        rank = float(np.mean([effective_rank(m) for m in maps]))
        deviation = float(np.mean([spatial_sd(m) for m in maps]))
        rows.append(LevelGap(name, maps.shape[1], modality_gap(maps), rank, deviation))
    return rows


def save_features(features: EncoderFeatures, path: str | os.PathLike[str]) -> None:
    """Write an ``.npz``: ``modalities`` (M,), ``levels`` (names), and per level ``<level>`` and ``<level>_case``."""
    arrays: dict[str, Any] = {"modalities": np.array(features.modalities), "levels": np.array(list(features.levels))}
    arrays.update(features.levels)
    arrays.update({f"{name}_case": ids for name, ids in features.case_ids.items()})
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_features(path: str | os.PathLike[str]) -> EncoderFeatures:
    """Read what :func:`save_features` wrote.

    Raises:
        ValueError: when the file is something else.
    """
    with np.load(path, allow_pickle=False) as file:
        if "modalities" not in file or "levels" not in file:
            raise ValueError(f"{path} holds no encoder features; medmap features writes such files")
        names = [str(name) for name in file["levels"]]
        return EncoderFeatures(
            tuple(str(name) for name in file["modalities"]),
            {name: file[name] for name in names},
            {name: file[f"{name}_case"] for name in names},
        )


def _window(image: Tensor, roi_size: Sequence[int] | int, network: ModalityNetwork) -> Tensor:
    """(M, ...) -> a batch of one window around the centre of the foreground, padded with zeros where it is smaller."""
    if image.ndim - 1 > network.spatial_dims:  # a 2-D network on a volume: the middle slice of the foreground
        middle = _centre((image != 0).any(dim=0))[-1]
        image = image[..., middle]
    size = window_size(roi_size, image.shape[1:], network.stride)
    centre = _centre((image != 0).any(dim=0))
    for axis, (length, middle) in enumerate(zip(size, centre, strict=True), start=1):
        missing = max(length - image.shape[axis], 0)
        before = [0, 0] * (image.ndim - 1 - axis) + [missing // 2, missing - missing // 2]
        image = pad(image, before)
        start = min(max(middle + missing // 2 - length // 2, 0), image.shape[axis] - length)
        image = image.narrow(axis, start, length)
    return image[None]


def _centre(foreground: Tensor) -> list[int]:
    """The middle of the box around the foreground; of the whole grid where there is none."""
    where = torch.nonzero(foreground)
    if len(where) == 0:
        return [n // 2 for n in foreground.shape]
    return ((where.amin(dim=0) + where.amax(dim=0) + 1) // 2).tolist()


def _choose(level: Tensor, brain: Tensor, positions: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Features (M, n, C) of one level (1, M, C, ...) at random foreground positions (anywhere without foreground)."""
    flat = level[0].flatten(2) if level.ndim > 3 else level[0].flatten(1)[..., None]
    if level.ndim == brain.ndim + 1:
        inside = interpolate(brain, size=level.shape[3:], mode="nearest").flatten() > 0
        where = torch.nonzero(inside).flatten().cpu().numpy()
    else:
        where = np.arange(flat.shape[2])  # tokens without a grid
    if len(where) == 0:
        where = np.arange(flat.shape[2])
    chosen = np.sort(rng.choice(where, min(positions, len(where)), replace=False))
    picked = flat[:, :, torch.from_numpy(chosen).to(flat.device)].transpose(1, 2)
    return picked.float().cpu().numpy()
