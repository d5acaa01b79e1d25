"""The random source of a synthetic study: numbers from NumPy, fields of noise on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Draw:
    """Seeded draws for one study.

    Numbers and the coarse nodes of smooth fields come from the CPU, so that a study has the same anatomy and tumour on
    every device; only noise per voxel is drawn on the device itself. On a CPU everything is reproducible bit by bit.

    Args:
        random_state: source of all randomness (MONAI's ``self.R``).
        shape: voxels (X, Y, Z) of the fields.
        spacing: voxel size in mm, the same along all axes.
        device: where fields live.
    """

    def __init__(
        self,
        random_state: np.random.RandomState,
        shape: Sequence[int],
        spacing: float,
        device: torch.device | str = "cpu",
    ) -> None:
        self.R = random_state
        self.shape = tuple(int(n) for n in shape)
        self.spacing = float(spacing)
        self.device = torch.device(device)
        seed = int(random_state.randint(0, 2**31 - 1))
        self._nodes = torch.Generator().manual_seed(seed)
        self._voxels = torch.Generator(self.device).manual_seed(seed + 1)

    def uniform(self, bounds: Sequence[float]) -> float:
        """A number between the two ``bounds``."""
        return float(self.R.uniform(bounds[0], bounds[1]))

    def integer(self, bounds: Sequence[int]) -> int:
        """A whole number, both ``bounds`` possible."""
        return int(self.R.randint(int(bounds[0]), int(bounds[1]) + 1))

    def chance(self, probability: float) -> bool:
        """True with ``probability``."""
        return bool(self.R.random_sample() < probability)

    def normal(self, sd: float, size: int | None = None) -> np.ndarray:
        """``size`` normal numbers with mean 0."""
        return np.asarray(self.R.normal(0.0, 1.0, size)) * sd

    def direction(self) -> np.ndarray:
        """A random unit vector."""
        vector = self.R.normal(size=3)
        return np.asarray(vector / (np.linalg.norm(vector) + 1e-9))

    def white_noise(self) -> Tensor:
        """Independent normal noise per voxel, (X, Y, Z)."""
        return torch.randn(self.shape, generator=self._voxels, device=self.device)

    def smooth_noise(self, cell: float, channels: int = 1) -> Tensor:
        """Smooth normal fields (channels, X, Y, Z), mean 0 and sd 1 each: cubic B-splines with nodes ``cell`` mm apart.

        The nodes lie at a random offset. A spline is a product of one small matrix per axis, which is fast everywhere.
        """
        step = max(cell / self.spacing, 1.0)
        weights = [_spline_weights(n, step, float(self.R.random_sample())) for n in self.shape]
        nodes = [w.shape[1] for w in weights]
        field = torch.randn((channels, *nodes), generator=self._nodes).to(self.device)
        for w in weights:  # contracts the first spatial axis and appends the new one: after three turns X, Y, Z again
            field = torch.tensordot(field, w.to(self.device), dims=([1], [1]))
        field -= field.mean(dim=(1, 2, 3), keepdim=True)
        sd = torch.linalg.vector_norm(field.flatten(1), dim=1) / math.sqrt(field[0].numel())
        return field.div_((sd + 1e-6)[:, None, None, None])


def _spline_weights(length: int, step: float, offset: float) -> Tensor:
    """Weights (length, nodes) of uniform cubic B-splines at voxels 1/``step`` node apart."""
    position = (torch.arange(length, dtype=torch.float64) / step + offset)[:, None] + 1
    nodes = math.ceil((length - 1) / step + offset) + 4
    distance = (position - torch.arange(nodes)).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far).float()


def gaussian_blur(x: Tensor, sd: Sequence[float]) -> Tensor:
    """``x`` (..., X, Y, Z) blurred with a standard deviation per axis in voxels; edges are repeated."""
    for axis, sigma in zip((-3, -2, -1), sd, strict=True):
        radius = math.ceil(2.5 * sigma)
        if sigma <= 0.05 or radius == 0:
            continue
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        bell = torch.exp(-0.5 * (offsets / sigma) ** 2)
        kernel: list[float] = (bell / bell.sum()).tolist()
        n = x.shape[axis]
        padded = _repeat_edges(x, axis, radius)
        result = padded.narrow(axis, radius, n) * kernel[radius]
        for k in range(1, radius + 1):
            pair = padded.narrow(axis, radius - k, n) + padded.narrow(axis, radius + k, n)
            result.add_(pair, alpha=kernel[radius + k])
        x = result
    return x


def _repeat_edges(x: Tensor, axis: int, width: int) -> Tensor:
    if width == 0:
        return x
    first = x.narrow(axis, 0, 1)
    last = x.narrow(axis, x.shape[axis] - 1, 1)
    size = list(x.shape)
    size[axis] = width
    return torch.cat([first.expand(size), x, last.expand(size)], dim=axis)


def sample_volume(volume: Tensor, points: Tensor, spacing: float) -> Tensor:
    """``volume`` (C, X, Y, Z) at ``points`` (..., 3) in mm from its centre, linearly; zero outside.

    Args:
        volume: voxels of ``spacing`` mm.
        points: positions in mm, last axis x, y, z.
        spacing: voxel size of ``volume``.

    Returns:
        (C, ...) in float32.
    """
    half = torch.tensor([(n - 1) / 2 * spacing for n in volume.shape[1:]], device=points.device)
    grid = (points / half).flip(-1).reshape(1, -1, 1, 1, 3)
    values = _linear(volume.float(), grid)
    return values.reshape(volume.shape[0], *points.shape[:-1])


def sample_rigid(image: Tensor, turn: np.ndarray, shift: np.ndarray, spacing: float) -> Tensor:
    """``image`` (X, Y, Z) at ``turn`` (3, 3) times each voxel's position plus ``shift``, in mm from its centre."""
    half = np.array([(n - 1) / 2 * spacing for n in image.shape])
    matrix = np.column_stack([turn * half / half[:, None], shift / half])[::-1]  # between -1 and 1, and z, y, x
    theta = np.ascontiguousarray(matrix[:, [2, 1, 0, 3]])
    size = [1, 1, *image.shape]
    grid = F.affine_grid(torch.from_numpy(theta).to(image)[None], size, align_corners=True)
    return _linear(image[None], grid)[0]


def _linear(volume: Tensor, grid: Tensor) -> Tensor:
    """``volume`` (C, X, Y, Z) at ``grid`` (1, ..., 3), which is -1 and 1 at the outermost voxels; zero outside."""
    return F.grid_sample(volume[None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
