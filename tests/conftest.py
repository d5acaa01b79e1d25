"""What tests of several folders share: small phantom cohorts and a bundle with weights, written once per process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medmap_monai.data.phantom import write_cohort
from tests.small_bundle import write_random_weights, write_small_bundle

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPE = (32, 32, 32)

torch.set_num_threads(1)  # processes share the cores


@pytest.fixture(scope="session")
def phantom_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight complete synthetic BraTS studies of 32^3 voxels. Do not write into it."""
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    write_cohort(folder, edition="brats2020", cases=8, shape=SHAPE, seed=11)
    return folder


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the small network that the phantom overlay of ``brats_unet_dropout`` defines."""
    return write_random_weights(tmp_path_factory.mktemp("weights") / "model.pt")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Copy a bundle into a fresh folder, with or without weights."""

    def make(name: str = "brats_unet_dropout", weights: Path | None = None) -> Path:
        bundle = tmp_path / name
        ignore = shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "runs", "phantom", "predictions", "evaluation")
        shutil.copytree(REPOSITORY / "bundles" / name, bundle, ignore=ignore)
        if weights is not None:
            shutil.copy(weights, bundle / "models" / "model.pt")
        return bundle

    return make


@pytest.fixture
def small_bundle(random_weights: Path) -> Callable[[Path], Path]:
    """Copy ``brats_unet_dropout`` with weights into a folder; its network and windows are small without an overlay."""

    return lambda folder: write_small_bundle(folder, random_weights)


@pytest.fixture
def run_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command as a user would, with this interpreter's ``python``, ``medmap`` and ``torchrun`` first on PATH."""

    def run(*command: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            told = f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}\n{told}")
        return done

    return run
