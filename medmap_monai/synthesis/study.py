"""One synthetic study: anatomy, deformation, tumour, sequences, scanner, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medmap_monai.synthesis.anatomy import Anatomy
from medmap_monai.synthesis.appearance import Appearance, Scene
from medmap_monai.synthesis.deformation import push_outwards, random_pose, voxel_positions
from medmap_monai.synthesis.draw import Draw, gaussian_blur, sample_volume
from medmap_monai.synthesis.scanner import mask_surface, scan
from medmap_monai.synthesis.tumour import TumourGrower, TumourPlan, choose_center, plan_tumour

_COARSE = 4  # voxels are skipped where only a place is chosen


@dataclass(frozen=True)
class SyntheticStudy:
    """image float32 (M, X, Y, Z), 0 outside the brain; label uint8 (1, X, Y, Z) of class indices; kind of tumour."""

    image: Tensor
    label: Tensor
    kind: str


def synthesize_study(
    anatomy: Anatomy,
    sequences: Sequence[str],
    shape: Sequence[int],
    spacing: float,
    priors: Mapping[str, Any],
    random_state: np.random.RandomState,
    device: torch.device | str = "cpu",
) -> SyntheticStudy:
    """Make one study of ``shape`` voxels of ``spacing`` mm, RAS orientation.

    Args:
        anatomy: the brain to start from.
        sequences: names in channel order.
        shape: voxels; a brain that is larger than the window is cut by it.
        spacing: mm.
        priors: see :func:`~medmap_monai.synthesis.priors.load_priors`.
        random_state: source of all randomness.
        device: where to compute.
    """
    state, size = random_state.get_state(), 1.0
    while True:
        draw = Draw(random_state, shape, spacing, device)
        positions = voxel_positions(draw)
        plan, center, tissue, core, brain = _posed(anatomy, positions, size, draw, priors)
        excess = float(brain.sum()) * spacing**3 / 1000 / priors["anatomy"]["largest"]
        if excess <= 1:
            break
        # a head that no human has: the same draws again, smaller
        size *= 0.99 * excess ** (-1 / 3)
        random_state.set_state(state)
    label = TumourGrower(draw, priors, positions, tissue, brain).grow(plan, center)
    kind = plan.kind if bool(label.any()) else "none"
    paint = Appearance(Scene(tissue, core, brain, label, kind), draw, priors)
    surface = mask_surface(brain)
    image = torch.stack([scan(paint.paint(name), positions, brain, surface, draw, priors) for name in sequences])
    return SyntheticStudy(image, label[None], kind)


def _posed(
    anatomy: Anatomy, positions: Tensor, size: float, draw: Draw, priors: Mapping[str, Any]
) -> tuple[TumourPlan, Tensor, Tensor, Tensor, Tensor]:
    """The brain in the window, already pushed aside by the tumour to come.

    Returns:
        plan and centre (3,) mm of the tumour; tissue (5, X, Y, Z) and core (X, Y, Z), memberships; brain, bool.
    """
    maps = anatomy.maps().to(draw.device)
    posed = random_pose(positions, draw, priors) / size
    plan = plan_tumour(draw, priors)
    center = torch.zeros(3, device=draw.device)
    if plan.kind != "none":
        coarse = (slice(None, None, _COARSE),) * 3
        first = sample_volume(maps, posed[coarse], anatomy.spacing) / 255
        center = choose_center(_location_weight(first, priors), positions[coarse], draw)
        if plan.push > 0:
            room = _room(first[5], draw)
            # the pose is nearly an isometry: displacing in the window and posing afterwards is what is meant
            source = push_outwards(positions, center, plan.radius, plan.push, plan.reach, room)
            posed = posed + (source - positions) @ _linear_part(posed, positions)
    soft = sample_volume(maps, posed, anatomy.spacing) / 255
    core = soft[5]
    brain = _brain_mask(core, draw, priors)
    tissue = soft[:5] * brain
    total = tissue.sum(0)
    tissue[3] += (1 - total).clamp(min=0) * brain  # what no tissue claims inside the mask is fluid
    return plan, center, tissue / tissue.sum(0).clamp(min=1e-3), core, brain


def _location_weight(maps: Tensor, priors: Mapping[str, Any]) -> Tensor:
    p = priors["location"]
    weight = p["white"] * maps[0] + p["cortex"] * maps[1] + p["deep"] * maps[2]
    inner = gaussian_blur(maps[5:6], [1.0] * 3)[0] > 0.9  # not right at the surface
    return weight * inner * (1 - (1 - p["infratentorial"]) * maps[6])


def _room(core: Tensor, draw: Draw) -> Tensor:
    """0 at the brain's surface, 1 deep inside, (X, Y, Z), from the coarse core (about 10 mm wide)."""
    voxel = draw.spacing * _COARSE
    blurred = gaussian_blur((core > 0.5).float()[None], [8.0 / voxel] * 3)
    room = ((blurred - 0.5) * 2.2).clamp(0, 1)
    return torch.nn.functional.interpolate(room[None], size=draw.shape, mode="trilinear", align_corners=False)[0, 0]


def _linear_part(posed: Tensor, positions: Tensor) -> Tensor:
    """The matrix (3, 3) of the pose, row vectors on the left, from central differences over the whole window."""
    rows = []
    for axis in range(3):
        last = [n // 2 for n in positions.shape[:3]]
        first = list(last)
        first[axis], last[axis] = 0, positions.shape[axis] - 1
        step = positions[tuple(last)] - positions[tuple(first)]
        rows.append((posed[tuple(last)] - posed[tuple(first)]) / step[axis])
    return torch.stack(rows)


def _brain_mask(core: Tensor, draw: Draw, priors: Mapping[str, Any]) -> Tensor:
    """Smooth outline that bridges sulci, as skull-strippers draw it; never cuts off tissue where it is not told to."""
    p = priors["brain_mask"]
    level = draw.uniform(p["level"]) + p["roughness"] * draw.smooth_noise(20.0)[0]
    blurred = gaussian_blur(core[None], [p["blur"] / draw.spacing] * 3)[0]
    return (blurred > level.clamp(0.1, 0.9)) | ((core > 0.6) & (blurred > p["tissue_level"]))
