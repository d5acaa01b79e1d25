"""Do the encoders of a bundle say what is there, or only where? The position share of every level and modality.

    python benchmarks/position_share.py STUDIES bundles/brats_medmap_rfnet --overlay phantom --set checkpoint=model.pt

Encodes the window in the centre of each complete study and prints, per level, the share of the features' variance
that the place in the window explains (mean over modalities). Close to 1, the features of all modalities can agree
without a look at the image, and a closed modality gap says little.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from monai.transforms import CenterSpatialCrop, Compose, SpatialPad, ToTensor

from medmap_monai.data.study_dataset import ERROR
from medmap_monai.engines.training_checkpoint import load_model
from medmap_monai.inferers.unwrap import find_network
from medmap_monai.metrics.position_share import position_share
from medmap_monai.utils.bundle_workflow import open_workflow, parse_overrides


@torch.no_grad()
def shares(bundle: Path, studies: Path, overlay: list[str], given: list[str], cases: int) -> list[float]:
    """Position share by level, finest first."""
    with TemporaryDirectory() as nowhere:
        values: dict[str, Any] = {"dataset_dir": str(studies), "output_dir": nowhere, "edition": None, "device": "cpu"}
        parser = open_workflow(bundle, "inference", overlay, {**values, **parse_overrides(given)}).parser
        dataset, size = parser.get_parsed_content("dataset"), parser.get_parsed_content("roi_size")
        network = find_network(parser.get_parsed_content("network"))
        if network is None:
            raise ValueError(f"the network of {bundle} does not encode modalities on their own")
        network.eval()
        load_model(network, parser.get_parsed_content("checkpoint"))
        window = Compose([SpatialPad(size), CenterSpatialCrop(size), ToTensor(track_meta=False)])
        samples = (sample for sample in (dataset[i] for i in range(len(dataset))) if ERROR not in sample)
        complete = (sample for sample in samples if bool(sample["present_mask"].all()))
        encoded = []
        for sample in islice(complete, cases):
            image = window(sample["image"])[None]
            encoded.append(network.encode(image, torch.ones(image.shape[:2], dtype=torch.bool)).pyramid)
    if len(encoded) < 2:
        raise ValueError(f"{studies}: {len(encoded)} complete studies, at least 2 are needed")
    levels = [torch.cat(level) for level in zip(*encoded, strict=True)]
    return [mean(position_share(level[:, m]) for m in range(level.shape[1])) for level in levels]


def main() -> None:
    """Parse the arguments, print one row per level."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--overlay", nargs="*", default=[], help="configurations that are laid over inference.json")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="values to override")
    parser.add_argument("--cases", type=int, default=24)
    arguments = parser.parse_args()
    found = shares(arguments.bundle, arguments.studies, arguments.overlay, arguments.set, arguments.cases)
    print("| level | position share |\n| --- | --- |")
    for level, value in enumerate(found):
        print(f"| {level} | {value:.2f} |")


if __name__ == "__main__":
    main()
