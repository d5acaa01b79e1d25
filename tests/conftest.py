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
from monai.bundle import ConfigParser

from medmap_monai.data.phantom import write_cohort

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
    configs = REPOSITORY / "bundles" / "brats_unet_dropout" / "configs"
    parser = ConfigParser()
    parser.read_config([str(configs / "inference.json"), str(configs / "phantom.json")])
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


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

    def make(folder: Path) -> Path:
        name = "brats_unet_dropout"
        ignore = shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "runs", "phantom", "predictions", "evaluation")
        bundle = Path(shutil.copytree(REPOSITORY / "bundles" / name, folder / name, ignore=ignore))
        for config in ("evaluate", "inference"):
            files = [bundle / "configs" / f"{part}.json" for part in (config, "phantom")]
            parser = ConfigParser()
            parser.read_config([str(file) for file in files])
            content = {**parser.config, "dataset_dir": "COHORT"}
            del content["phantom_cohort"]
            ConfigParser.export_config_file(content, str(files[0]), indent=1)
        shutil.copyfile(random_weights, bundle / "models" / "model.pt")
        return bundle

    return make


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
