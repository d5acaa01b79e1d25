"""Tumours: outlines as warped distance fields that follow white matter and avoid fluid and cortex."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medmap_monai.synthesis.deformation import rotation_matrix
from medmap_monai.synthesis.draw import Draw, gaussian_blur

NECROSIS, OEDEMA, ENHANCING = 1, 2, 3  # class indices of the brain tumour task


@dataclass(frozen=True)
class TumourPlan:
    """What kind of tumour a study gets, drawn before the anatomy is deformed.

    Attributes:
        kind: ``none`` or one of the kinds in the priors.
        radius: of the whole tumour, mm (of the largest spot's oedema for metastases).
        push, reach: mass effect, see ``push_outwards``.
    """

    kind: str
    radius: float
    push: float
    reach: float


def plan_tumour(draw: Draw, priors: Mapping[str, Any]) -> TumourPlan:
    """Draw kind, size and mass effect."""
    p, m = priors["tumour"], priors["mass_effect"]
    kinds = list(p["kinds"])
    shares = np.array([p["kinds"][kind] for kind in kinds], dtype=float)
    kind = kinds[int(draw.R.choice(len(kinds), p=shares / shares.sum()))]
    if draw.chance(p["none"]):
        return TumourPlan("none", 0.0, 0.0, 1.0)
    low, high = np.sqrt(p["radius"])
    radius = float(draw.R.uniform(low, high) ** 2)
    push = 0.0 if draw.chance(m["none"]) else min(radius * draw.uniform(m["push"]), m["most"])
    return TumourPlan(kind, radius, push, draw.uniform(m["reach"]))


def choose_center(weight: Tensor, positions: Tensor, draw: Draw) -> Tensor:
    """A position (3,) in mm, drawn with a chance proportional to ``weight`` (X, Y, Z)."""
    flat = weight.flatten().double().cpu().numpy()
    if flat.sum() <= 0:
        return torch.zeros(3, device=positions.device)
    index = int(np.searchsorted(np.cumsum(flat), draw.R.random_sample() * flat.sum(), side="right"))
    return positions.reshape(-1, 3)[min(index, len(flat) - 1)]


class TumourGrower:
    """Draws outlines around a centre in one brain.

    Args:
        draw: random source.
        priors: the whole table.
        positions: (X, Y, Z, 3) mm.
        tissue: (5, X, Y, Z) memberships of the deformed anatomy.
        brain: bool (X, Y, Z); nothing grows outside.
    """

    def __init__(self, draw: Draw, priors: Mapping[str, Any], positions: Tensor, tissue: Tensor, brain: Tensor) -> None:
        self.draw, self.priors, self.positions, self.brain = draw, priors["tumour"], positions, brain
        p = self.priors
        white, cortex, deep, fluid = tissue[0], tissue[1], tissue[2], tissue[3] + tissue[4]
        self.fluid = fluid
        resistance = (
            draw.uniform(p["resist_fluid"]) * fluid
            + draw.uniform(p["resist_cortex"]) * cortex
            + draw.uniform(p["resist_deep"]) * deep
            - draw.uniform(p["invite_white"]) * white
        )
        # growth does not follow every single voxel of a sulcus
        self.resistance = gaussian_blur(resistance[None], [p["smooth_resistance"] / draw.spacing] * 3)[0]

    def grow(self, plan: TumourPlan, center: Tensor) -> Tensor:
        """Class map uint8 (X, Y, Z): 0, necrosis or core, oedema, enhancing."""
        label = torch.zeros(self.draw.shape, dtype=torch.uint8, device=self.draw.device)
        if plan.kind == "none":
            return label
        if plan.kind == "metastases":
            return self._metastases(label, plan, center)
        whole = self._outline(center, plan.radius, self.resistance) < 1
        for _ in range(self.draw.integer(self.priors["blobs"])):
            offset = self.draw.direction() * plan.radius * self.draw.uniform(self.priors["blob_offset"])
            place = center + self._vector(offset)
            size = plan.radius * self.draw.uniform(self.priors["blob_radius"])
            whole = whole | (self._outline(place, size, self.resistance) < 1)
        whole = whole & self.brain
        own = self.priors[plan.kind]
        core_radius = plan.radius * self.draw.uniform(own["core"])
        slack = max(plan.radius - core_radius, 0.15 * plan.radius)
        core_center = center + self._vector(self.draw.direction() * self.draw.uniform((0.0, slack * 0.7)))
        core_field = self._outline(core_center, core_radius, 0.35 * self.resistance)
        core = (core_field < 1) & whole
        label[whole] = OEDEMA
        label[core] = NECROSIS
        enhancing = getattr(self, f"_{plan.kind}_enhancement")(own, core_center, core_radius, core_field)
        label[enhancing & core] = ENHANCING
        return label

    def _ring_enhancement(self, own: Mapping[str, Any], center: Tensor, radius: float, field: Tensor) -> Tensor:
        inner = radius * self.draw.uniform(own["necrosis"])
        necrosis = 0.5 * self._outline(center, inner, 0.0) + 0.5 * field * (radius / max(inner, 1e-3)) < 1
        ring = ~necrosis
        if self.draw.chance(own["broken"]):
            ring = ring & (self.draw.smooth_noise(max(0.7 * radius, 4.0))[0] < self.draw.uniform((0.3, 1.5)))
        return ring

    def _low_grade_enhancement(self, own: Mapping[str, Any], center: Tensor, radius: float, field: Tensor) -> Tensor:
        if not self.draw.chance(own["nodule"]):
            return torch.zeros_like(self.brain)
        place = center + self._vector(self.draw.direction() * radius * self.draw.uniform((0.0, 0.7)))
        return self._outline(place, radius * self.draw.uniform(own["nodule_radius"]), 0.0) < 1

    def _cavity_enhancement(self, own: Mapping[str, Any], center: Tensor, radius: float, field: Tensor) -> Tensor:
        rim = field > 1 - self.draw.uniform(own["rim"]) / radius
        gaps = self.draw.smooth_noise(max(0.6 * radius, 4.0))[0] > float(self.draw.normal(0.6))
        return rim & gaps if self.draw.chance(own["rim_gaps"]) else rim

    def _metastases(self, label: Tensor, plan: TumourPlan, center: Tensor) -> Tensor:
        own = self.priors["metastases"]
        spots = []
        for number in range(self.draw.integer(own["count"])):
            weight = (1 - self.fluid) * self.brain
            place = center if number == 0 else choose_center(weight, self.positions, self.draw)
            radius = self.draw.uniform(own["radius"])
            oedema = radius * self.draw.uniform(own["oedema"])
            label[(self._outline(place, oedema, 1.3 * self.resistance) < 1) & self.brain] = OEDEMA
            field = self._outline(place, radius, 0.2 * self.resistance)
            spots.append((field, self.draw.uniform(own["necrosis"])))
        for field, necrosis in spots:
            inside = (field < 1) & self.brain
            label[inside] = ENHANCING
            label[inside & (field < necrosis)] = NECROSIS
        return label

    def _outline(self, center: Tensor, radius: float, resistance: Tensor | float) -> Tensor:
        """Field that is below 1 inside: anisotropic distance in radii, warped by noise, plus the resistance."""
        p, draw = self.priors, self.draw
        axes = rotation_matrix(draw.R.uniform(0, 180, 3))
        stretch = np.array([draw.uniform(p["anisotropy"]) for _ in range(3)])
        distance = self._distance((axes * stretch).T / max(radius, 1e-3), center)
        cell = max(radius * draw.uniform(p["noise_cell"]), 1.5 * draw.spacing)
        roughness = draw.uniform(p["noise"])
        return distance.add_(draw.smooth_noise(cell)[0], alpha=roughness).add_(resistance)

    def _distance(self, matrix: np.ndarray, center: Tensor) -> Tensor:
        """Length (X, Y, Z) of ``matrix`` (3, 3) times the way from ``center``: per row a sum of one term per axis."""
        rows = self._vector(matrix)
        x, y, z = (self.positions.select(-1, axis) - center[axis] for axis in range(3))
        x, y, z = x[:, :1, :1], y[:1, :, :1], z[:1, :1, :]
        squares = [((row[0] * x + row[1] * y) + row[2] * z).square_() for row in rows]
        return squares[0].add_(squares[1]).add_(squares[2]).sqrt_()

    def _vector(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.draw.device)
