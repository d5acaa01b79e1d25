"""The scripts behind the starter: its training in the smallest run, and the picture of its studies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medmap_monai.synthesis.phantom_anatomy import ensure_phantom_anatomy

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
TRAIN = ("--channels", "2", "4", "--deep", "0", "--shape", "24", "32", "24", "--spacing", "7", "--batch", "2")
TRAIN += ("--steps", "1", "--workers", "1", "--save-every", "1", "--log-every", "1", "--modality-weight", "0")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def anatomy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ensure_phantom_anatomy(tmp_path_factory.mktemp("anatomy"))


def test_a_second_stage_on_windows_is_mixed_with_the_first(anatomy: str, tmp_path: Path, run_command: Run) -> None:
    script = ("python", str(PIPELINES / "train_starter.py"), "--anatomy", anatomy, "--output", str(tmp_path), *TRAIN)
    run_command(*script, "--name", "first", cwd=tmp_path)
    second = ("--start", "first.pt", "--window", "16", "16", "16", "--subsets", "1", "--new-per-step", "1")
    second += ("--singles", "0.2", "0.3", "0.3", "0.2")
    weights = {}
    for mix in ("0.5", "1"):
        run_command(*script, *second, "--mix", mix, "--name", f"mix{mix}", cwd=tmp_path)
        weights[mix] = torch.load(tmp_path / f"mix{mix}.pt", weights_only=True)
    first = torch.load(tmp_path / "first.pt", weights_only=True)
    assert any(not torch.equal(weights["1"][name], first[name]) for name in first)
    for name, value in first.items():
        middle = (value.float() + weights["1"][name].float()) / 2
        torch.testing.assert_close(weights["0.5"][name].float(), middle, atol=2e-3, rtol=2e-3)


def test_a_batch_of_several_subsets(anatomy: str, tmp_path: Path, run_command: Run) -> None:
    script = ("python", str(PIPELINES / "train_starter.py"), "--anatomy", anatomy, "--output", str(tmp_path), *TRAIN)
    run_command(*script, "--subsets", "2", "--singles", "0.2", "0.3", "0.3", "0.2", "--name", "two", cwd=tmp_path)
    assert all(value.isfinite().all() for value in torch.load(tmp_path / "two.pt", weights_only=True).values())
    refused = subprocess.run([sys.executable, *script[1:], "--subsets", "3"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--batch 2 is no multiple of --subsets 3" in refused.stderr


def test_the_picture_of_the_studies_is_drawn(anatomy: str, tmp_path: Path, run_command: Run) -> None:
    script = str(PIPELINES / "draw_synthetic_studies.py")
    run_command("python", script, "--anatomy", anatomy, "-o", "picture.png", cwd=tmp_path)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
