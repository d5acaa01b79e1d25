"""How hard does each loss of a bundle pull on the encoders, beside the labels? For choosing loss weights.

    python benchmarks/loss_gradients.py bundles/brats_dmafnet --overlay phantom --batches 3
    python benchmarks/loss_gradients.py bundles/brats_dmafnet --overlay phantom --checkpoint models/model.pt

For every loss of the bundle's method (at the weights of its configuration; ``--set prototype_weight=1.0`` to change
one) the gradient with respect to the encoders' parameters is compared with that of the losses that use labels only: the
ratio of the norms, its median over weight tensors (an optimiser like AdamW scales every tensor on its own, so this is
what it sees), and the cosine of the angle between them.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from itertools import islice
from pathlib import Path
from statistics import mean, median

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from torch import Tensor

from medmap_monai.methods.base import Method

LABELS = ("fused", "deep", "modality")


def encoder_gradients(loss: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Gradient of a scalar with respect to each parameter, zero where there is none."""
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def compare(gradient: list[Tensor], labels: list[Tensor]) -> dict[str, float]:
    """Ratio of the norms, its median over tensors with more than one axis, and the cosine of the angle."""
    mine, theirs = (torch.cat([g.flatten() for g in group]) for group in (gradient, labels))
    pairs = [(g.norm(), r.norm()) for g, r in zip(gradient, labels, strict=True) if g.ndim > 1]
    ratios = [float(g / r) for g, r in pairs if g > 0 and r > 0]
    return {
        "ratio": float(mine.norm() / theirs.norm()),
        "median ratio": median(ratios) if ratios else 0.0,
        "cosine": float(torch.cosine_similarity(mine, theirs, dim=0)),
    }


def measure(method: Method, batches: list[dict[str, Tensor]]) -> dict[str, dict[str, float]]:
    """Mean over batches of value and comparison, by loss."""
    parameters: list[Tensor] = [p for encoder in method.network.encoders for p in encoder.parameters()]
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for batch in batches:
        losses = method(*(batch[key] for key in ("image", "modality_mask", "present_mask", "label"))).losses
        reference = torch.stack([value for name, value in losses.items() if name in LABELS]).sum()
        labels = encoder_gradients(reference, parameters)
        for name, value in {"all labels": reference, **losses}.items():
            found = {"value": float(value.detach()), **compare(encoder_gradients(value, parameters), labels)}
            for key, number in found.items():
                rows[name][key].append(number)
    return {name: {key: mean(numbers) for key, numbers in row.items()} for name, row in rows.items()}


def main() -> None:
    """Parse the arguments, print one row per loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--overlay", help="name of a configuration that is laid over train.json")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="values (JSON) to override")
    parser.add_argument("--checkpoint", type=Path, help="weights of the network (default: untrained)")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    set_determinism(arguments.seed)
    config = ConfigParser()
    names = ["train", *([arguments.overlay] if arguments.overlay else [])]
    config.read_config([arguments.bundle / "configs" / f"{name}.json" for name in names])
    config.update({"bundle_root": str(arguments.bundle)})
    config.update({key: json.loads(value) for key, value in (item.split("=", 1) for item in arguments.set)})
    method = config.get_parsed_content("method")
    if arguments.checkpoint is not None:
        method.network.load_state_dict(torch.load(arguments.checkpoint, weights_only=True, map_location="cpu"))
    batches = list(islice(config.get_parsed_content("train#dataloader"), arguments.batches))
    rows = measure(method.train(), batches)
    columns = list(next(iter(rows.values())))
    print("| loss | " + " | ".join(columns) + " |\n" + "| --- " * (len(columns) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in columns) + " |")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
