"""Where each voxel of a synthetic study lies in the anatomy: pose, elastic variation, mass effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medmap_monai.synthesis.draw import Draw


def rotation_matrix(degrees: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [i for i in range(3) if i != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        matrix = step @ matrix
    return matrix


def voxel_positions(draw: Draw) -> Tensor:
    """Positions (X, Y, Z, 3) of the voxels in mm from the centre of the window."""
    axes = [(torch.arange(n, device=draw.device) - (n - 1) / 2) * draw.spacing for n in draw.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def random_pose(positions: Tensor, draw: Draw, priors: Mapping[str, Any]) -> Tensor:
    """``positions`` in the window -> positions in the anatomy: rotated, scaled, shifted, mirrored, elastically bent."""
    p = priors["anatomy"]
    scale = draw.uniform(p["scale"]) * (1 + draw.normal(p["anisotropy_sd"], 3))
    turn = rotation_matrix(draw.normal(p["rotation_sd"], 3))
    matrix = np.diag(1 / scale) @ turn
    if draw.chance(p["flip"]):
        matrix = np.diag([-1.0, 1.0, 1.0]) @ matrix
    shift = draw.normal(p["shift_sd"], 3)
    affine = torch.as_tensor(matrix.T, dtype=torch.float32, device=draw.device)
    moved = (positions + torch.as_tensor(shift, dtype=torch.float32, device=draw.device)) @ affine
    bend = draw.smooth_noise(p["elastic_cell"], channels=3).movedim(0, -1)
    return moved + bend * draw.uniform(p["elastic_sd"])


def push_outwards(positions: Tensor, center: Tensor, radius: float, push: float, reach: float, room: Tensor) -> Tensor:
    """``positions`` before a growing mass pushed the tissue: what is now at x came from nearer to ``center``.

    The push is strongest at the centre's surroundings, decays over ``reach`` radii and ends at the skull. Source: ours.

    Args:
        positions: (X, Y, Z, 3) mm in the window.
        center: (3,) mm.
        radius: of the mass, mm.
        push: longest displacement, mm.
        reach: decay length in radii.
        room: (X, Y, Z) 0 at the edge of the brain, 1 inside, so that nothing is pushed out of the skull.
    """
    away = positions - center
    distance = away.square().sum(-1).sqrt() + 1e-3
    size = push * torch.exp(-((distance / (reach * 2 * radius)) ** 2)) * room
    size = torch.minimum(size, 0.6 * distance)
    return positions - away * (size / distance)[..., None]
