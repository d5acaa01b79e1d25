"""A bundle whose network and windows are small, with random weights: what is tested is the handling."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from monai.bundle import ConfigParser

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
NAME = "brats_unet_dropout"
_IGNORED = ("*.pt", "*.ts", "*.onnx", "runs", "phantom", "predictions", "evaluation")


def write_random_weights(path: Path, seed: int = 0) -> Path:
    """Weights of the small network that the phantom overlay of ``brats_unet_dropout`` defines."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / NAME / "configs" / f"{name}.json") for name in ("inference", "phantom")])
    torch.manual_seed(seed)
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


def write_small_bundle(folder: Path, weights: Path) -> Path:
    """Copy ``brats_unet_dropout`` with ``weights`` into ``folder``; it is small without an overlay."""
    bundle = Path(shutil.copytree(BUNDLES / NAME, folder / NAME, ignore=shutil.ignore_patterns(*_IGNORED)))
    for config in ("evaluate", "inference"):
        files = [bundle / "configs" / f"{part}.json" for part in (config, "phantom")]
        parser = ConfigParser()
        parser.read_config([str(file) for file in files])
        content = {**parser.config, "dataset_dir": "COHORT"}
        del content["phantom_cohort"]
        ConfigParser.export_config_file(content, str(files[0]), indent=1)
    shutil.copyfile(weights, bundle / "models" / "model.pt")
    return bundle
