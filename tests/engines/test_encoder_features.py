"""Encoder features: which positions, which studies, the file, the gap table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medmap_monai.engines.encoder_features import (
    collect_features,
    gap_per_level,
    load_features,
    save_features,
)
from medmap_monai.metrics.effective_rank import effective_rank
from medmap_monai.metrics.modality_gap import modality_gap
from medmap_monai.networks.base import ModalityFeatures, ModalityNetwork

NAMES = ("a", "b")


class Scale(nn.Module):
    """Level 0: the image times a factor; level 1: its average over pairs of voxels."""

    def __init__(self, factor: float, spatial_dims: int = 3) -> None:
        super().__init__()
        self.factor = factor
        self.pool = nn.AvgPool3d(2) if spatial_dims == 3 else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = torch.cat([x * self.factor, x.square()], dim=1)
        return [x, self.pool(x)]


class Known(ModalityNetwork):
    def __init__(self, spatial_dims: int = 3, tokens: bool = False) -> None:
        super().__init__(spatial_dims, 2, 2, 2, [Scale(1.0, spatial_dims), Scale(-2.0, spatial_dims)])
        self.with_tokens = tokens

    def encode(self, image: Tensor, present_mask: Tensor | None = None) -> ModalityFeatures:
        features = super().encode(image, present_mask)
        tokens = features.pyramid[1].flatten(3) if self.with_tokens else None
        return ModalityFeatures(features.pyramid, tokens, features.present)


def sample(
    case: str, box: tuple[slice, ...], shape: tuple[int, ...] = (12, 8, 8), present: str = "11"
) -> dict[str, Any]:
    """Foreground in ``box`` only; the voxel's value tells where it is."""
    image = torch.zeros(2, *shape)
    numbers = torch.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    image[(slice(None), *box)] = numbers[box]
    return {"case_id": case, "image": image, "present_mask": torch.tensor([p == "1" for p in present])}


BOX = (slice(6, 10), slice(2, 6), slice(0, 4))


def test_modalities_are_taken_at_the_same_foreground_positions() -> None:
    found = collect_features(Known(), [sample("x", BOX)], NAMES, (8, 8, 8), positions=20)
    first, second = found.levels["level0"]
    assert first.shape == (20, 2)
    np.testing.assert_allclose(second[:, 0], -2 * first[:, 0])
    numbers = sample("x", BOX)["image"][0][BOX].flatten().tolist()
    assert set(first[:, 0].tolist()) <= set(numbers)  # inside the box, though the window cuts the volume
    assert len(set(first[:, 0].tolist())) == 20
    assert found.levels["level1"].shape == (2, 8, 2)  # all 2 x 2 x 2 positions that show foreground
    assert found.case_ids["level1"].tolist() == ["x"] * 8


def test_incomplete_studies_are_passed_over_and_the_choice_has_a_seed() -> None:
    samples = [sample("x", BOX), sample("y", BOX, present="10"), sample("z", BOX)]
    once = collect_features(Known(), samples, NAMES, 8, positions=5, seed=3)
    again = collect_features(Known(), samples, NAMES, 8, positions=5, seed=3)
    other = collect_features(Known(), samples, NAMES, 8, positions=5, seed=4)
    assert once.case_ids["level0"].tolist() == ["x"] * 5 + ["z"] * 5
    assert np.array_equal(once.levels["level0"], again.levels["level0"])
    assert not np.array_equal(once.levels["level0"], other.levels["level0"])
    with pytest.raises(ValueError, match=r"no study has all of \['a', 'b'\]"):
        collect_features(Known(), samples[1:2], ["a", "b"], 8)


def test_small_volumes_are_padded_and_2d_networks_see_a_slice() -> None:
    small = collect_features(Known(), [sample("x", (slice(0, 2),) * 3, (3, 4, 4))], NAMES, 8, positions=100)
    assert small.levels["level0"].shape == (2, 8, 2)
    flat = collect_features(Known(2), [sample("x", BOX)], NAMES, (8, 8), positions=100)
    assert flat.levels["level0"].shape == (2, 16, 2)
    numbers = sample("x", BOX)["image"][0, 6:10, 2:6, 2].flatten().tolist()
    assert sorted(flat.levels["level0"][0, :, 0].tolist()) == sorted(numbers)


def test_tokens_are_a_level_of_their_own() -> None:
    found = collect_features(Known(tokens=True), [sample("x", BOX)], NAMES, 8, positions=1000)
    assert list(found.levels) == ["level0", "level1", "tokens"]
    assert found.levels["tokens"].shape == (2, 64, 2)


def test_gap_per_level_is_the_measures_of_that_level() -> None:
    found = collect_features(Known(), [sample("x", BOX), sample("z", BOX)], NAMES, 8, positions=30)
    rows = gap_per_level(found)
    assert [row.level for row in rows] == ["level0", "level1"]
    maps = torch.from_numpy(found.levels["level0"])
    assert rows[0].gap == modality_gap(maps)
    assert rows[0].positions == 60
    assert rows[0].effective_rank == pytest.approx(np.mean([effective_rank(m) for m in maps]))


def test_the_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    found = collect_features(Known(), [sample("x", BOX)], NAMES, 8, positions=6)
    save_features(found, tmp_path / "features.npz")
    read = load_features(tmp_path / "features.npz")
    assert read.modalities == NAMES
    assert list(read.levels) == list(found.levels)
    for name in found.levels:
        assert np.array_equal(read.levels[name], found.levels[name])
        assert read.case_ids[name].tolist() == found.case_ids[name].tolist()
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="holds no encoder features"):
        load_features(tmp_path / "other.npz")
