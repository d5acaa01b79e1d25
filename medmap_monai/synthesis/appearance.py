"""What each sequence shows of tissue and tumour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medmap_monai.synthesis.anatomy import TISSUES
from medmap_monai.synthesis.draw import Draw, gaussian_blur
from medmap_monai.synthesis.tumour import ENHANCING, NECROSIS, OEDEMA


@dataclass(frozen=True)
class Scene:
    """One deformed brain with its tumour, before any sequence is drawn.

    tissue: (5, X, Y, Z) memberships. core: (X, Y, Z) 1 inside the brain, 0 in the fluid around it. brain: bool mask.
    label: uint8 class map. kind: of the tumour.
    """

    tissue: Tensor
    core: Tensor
    brain: Tensor
    label: Tensor
    kind: str


class Appearance:
    """Paints the sequences of one scene; what sequences share (lesion edges, vessels, ...) is made once.

    Args:
        scene: the brain.
        draw: random source.
        priors: the whole table; its ``tissue`` names the sequences that can be painted.
    """

    def __init__(self, scene: Scene, draw: Draw, priors: Mapping[str, Any]) -> None:
        self.scene, self.draw, self.priors = scene, draw, priors
        self.random_contrast = draw.chance(priors["random_contrast"])
        self.t1_shift = draw.uniform(priors["clear_t1_shift"]) if draw.chance(priors["clear_t1"]) else 0.0
        self.twins: tuple[str, ...] = tuple(priors["twins"]["pair"]) if draw.chance(priors["twins"]["chance"]) else ()
        self.drawn: dict[tuple[str, str], float] = {}
        self.lesions = self._lesion_edges()
        self.shared = {
            "hyperintensities": self._hyperintensities(),
            "caps": self._caps(),
            "fluid_flow": self._fluid_flow(),
            "vessels": self._vessels(),
            "meninges": self._meninges(),
            "sinuses": self._sinuses(),
        }

    def paint(self, sequence: str) -> Tensor:
        """The image (X, Y, Z) of ``sequence`` before the scanner, about 0..1.4; also outside the mask.

        Raises:
            ValueError: a sequence that the priors do not know.
        """
        if sequence not in self.priors["tissue"]:
            raise ValueError(f"no appearance for {sequence!r}; the priors know {sorted(self.priors['tissue'])}")
        draw, p = self.draw, self.priors
        image = torch.einsum("t,txyz->xyz", self._tissue_means(sequence), self.scene.tissue)
        image = image * (1 + draw.uniform(p["texture"]) * draw.smooth_noise(4.0)[0])
        for name, field in self.shared.items():
            strength = p[name]["strength"].get(sequence)
            if field is not None and strength is not None:
                amount = draw.uniform(strength)
                # bright things tend towards a brightness rather than add up
                image = image + amount * field * ((p["brightest"] - image).clamp(min=0) if amount > 0 else image)
        return self._add_lesions(image, sequence)

    def _tissue_means(self, sequence: str) -> Tensor:
        p, draw = self.priors, self.draw
        means = np.array(p["tissue"][sequence], dtype=float)
        twin = self._twin(sequence)
        if twin is not None and (twin, TISSUES[0]) in self.drawn:
            # the plexus enhances, everything else is as in the twin
            same = np.array([self.drawn[twin, tissue] for tissue in TISSUES[:-1]])
            means[:-1] = same + draw.normal(p["twins"]["sd"], len(same))
        else:
            if self.random_contrast:
                means = draw.R.uniform(0.1, 1.0, len(means))
            sd = p["tissue_sd"]
            if draw.chance(p["unusual"]):
                sd = float(np.hypot(sd, p["unusual_sd"]))
            means = means + draw.normal(sd, len(means))
        means = np.maximum(means, 0.02)
        self.drawn.update({(sequence, tissue): float(mean) for tissue, mean in zip(TISSUES, means, strict=True)})
        return torch.as_tensor(means, dtype=torch.float32, device=draw.device)

    def _twin(self, sequence: str) -> str | None:
        """The sequence whose contrast ``sequence`` shares in this study, if any (T1 before and after contrast)."""
        if sequence not in self.twins:
            return None
        first, second = self.twins
        return second if sequence == first else first

    def _lesion_level(self, sequence: str, value: int, name: str) -> float:
        """Brightness of a part of the lesion; parts that do not enhance look alike in twins."""
        twin = self._twin(sequence)
        if twin is not None and value != ENHANCING and (twin, name) in self.drawn:
            level = self.drawn[twin, name] + float(self.draw.normal(self.priors["twins"]["sd"]))
        else:
            level = self.draw.uniform(self.priors["lesion"][sequence][name])
            if sequence in self.priors["twins"]["pair"] and value != ENHANCING:
                level += self.t1_shift
        self.drawn[sequence, name] = level
        return level

    def _lesion_edges(self) -> dict[int, Tensor]:
        """Soft memberships (X, Y, Z) of the classes, oedema with wider edges."""
        p, draw = self.priors["tumour"], self.draw
        if self.scene.kind == "none":
            return {}
        edge, wide = draw.uniform(p["edge"]), draw.uniform(p["oedema_edge"])
        soft = {}
        for value in (OEDEMA, NECROSIS, ENHANCING):
            inside = self.scene.label == value if value != OEDEMA else self.scene.label > 0
            if bool(inside.any()):
                sd = (wide if value == OEDEMA else edge) / draw.spacing
                soft[value] = gaussian_blur(inside.float()[None], [sd] * 3)[0]
        return soft

    def _add_lesions(self, image: Tensor, sequence: str) -> Tensor:
        """Oedema under everything, then core and enhancement: each replaces what lies below by its soft edge."""
        p, draw = self.priors, self.draw
        kind = self.scene.kind
        names = {
            OEDEMA: "oedema",
            NECROSIS: {"low_grade": "low_grade", "cavity": "cavity"}.get(kind, "necrosis"),
            ENHANCING: "enhancing",
        }
        for value, soft in self.lesions.items():
            level = self._lesion_level(sequence, value, names[value])
            if value == ENHANCING and kind == "low_grade":
                level *= draw.uniform(p["low_grade_ring_enhancement"])
            level = max(level, 0.05)
            weight = draw.uniform(p["lesion_weight"]) * soft
            if value == OEDEMA:
                weight = weight * (1 - 0.85 * self.scene.tissue[3])  # fluid in sulci stays fluid
            lesion = level * (1 + p["lesion_noise"] * draw.smooth_noise(9.0)[0])
            image = torch.lerp(image, lesion, weight.clamp(0, 1))
        return image

    def _hyperintensities(self) -> Tensor | None:
        p, draw = self.priors["hyperintensities"], self.draw
        count = draw.integer(p["count"])
        if count == 0:
            return None
        white = self.scene.tissue[0] * (self.scene.label == 0)
        flat = white.flatten()
        field = torch.zeros_like(white)
        grid = [torch.arange(n, device=white.device, dtype=torch.float32) for n in white.shape]
        cumulative = flat.double().cumsum(0).cpu().numpy()
        for _ in range(count):
            index = int(np.searchsorted(cumulative, draw.R.random_sample() * cumulative[-1], side="right"))
            place = np.unravel_index(min(index, flat.numel() - 1), tuple(white.shape))
            radius = draw.uniform(p["radius"]) / draw.spacing
            x, y, z = (torch.exp(-((g - float(c)) ** 2) / (2 * radius**2)) for g, c in zip(grid, place, strict=True))
            field += x[:, None, None] * y[None, :, None] * z[None, None, :]
        return field.clamp(max=1) * white

    def _caps(self) -> Tensor | None:
        p, draw = self.priors["caps"], self.draw
        if not draw.chance(p["chance"]):
            return None
        inner_fluid = self.scene.tissue[3] * self.scene.core
        width = draw.uniform(p["width"]) / draw.spacing
        return gaussian_blur(inner_fluid[None], [width] * 3)[0] * self.scene.tissue[0] * 2

    def _fluid_flow(self) -> Tensor | None:
        if not self.draw.chance(self.priors["fluid_flow"]["chance"]):
            return None
        return self.scene.tissue[3] * self.draw.smooth_noise(25.0)[0].clamp(min=0)

    def _vessels(self) -> Tensor:
        p, draw = self.priors["vessels"], self.draw
        a, b = draw.smooth_noise(p["cell"], channels=2)
        width = draw.uniform(p["width"])
        line = torch.exp(-(a / width).square() - (b / width).square())
        where = self.scene.tissue[3] * 0.6 + self.scene.tissue[1] * 0.25 + 0.12 * self.scene.tissue[0]
        return line * (where + 0.8 * _rim(self.scene.brain, draw))

    def _meninges(self) -> Tensor | None:
        if not self.draw.chance(self.priors["meninges"]["chance"]):
            return None
        patches = self.draw.smooth_noise(20.0)[0].add(0.3).clamp(0, 1.5)
        return _rim(self.scene.brain, self.draw) * patches

    def _sinuses(self) -> Tensor | None:
        """Wide veins at the surface of the mask, where the skull-stripper left them."""
        p, draw = self.priors["sinuses"], self.draw
        if not draw.chance(p["chance"]):
            return None
        sheet = draw.smooth_noise(p["cell"])[0]
        return torch.exp(-((sheet / draw.uniform(p["width"])) ** 2)) * _rim(self.scene.brain, draw)


def _rim(brain: Tensor, draw: Draw) -> Tensor:
    """About 1 in the outermost voxels of the mask, falling off over 2 mm."""
    inside = gaussian_blur(brain.float()[None], [2.0 / draw.spacing] * 3)[0]
    return (2 - 2 * inside).clamp(0, 1) * brain
