"""Data loading against training: seconds per sample that the loader alone needs, and that a training step needs.

Cases are phantoms in the geometry of BraTS (240 x 240 x 155 voxels, four modalities, NIfTI), loaded, normalised,
cropped and augmented by the transforms of the training bundles. Both sides are CPU seconds of one process, so the
ratio is what one loading process per training process delivers. "decoded" reads every file every time
(``cache_rate`` 0, no store), "stored" reads crops of what the first epoch wrote (``store_dir``), "cached" keeps what
comes before the first random transform in memory (``cache_rate`` 1).

    OMP_NUM_THREADS=1 python benchmarks/bench_loading.py --networks rfnet mmformer unet
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_passion import NETWORKS, build_method, build_network, conv_unit, cpu_seconds, training_step
from monai.data import DataLoader

from medmap_monai.data.case_store import CaseStore
from medmap_monai.data.cohort import cohort_records
from medmap_monai.data.phantom import write_cohort
from medmap_monai.data.seeded_dataset import SeededCacheDataset
from medmap_monai.modalities import BRATS
from medmap_monai.transforms.pipelines import train_transforms

WAYS = ("decoded", "stored", "cached")
TARGET = 5.0  # the loader alone delivers at least that many times the training rate


def loading_seconds(folder: Path, size: int, way: str, samples: int) -> list[float]:
    """CPU seconds of each of ``samples`` samples, after one epoch that is not counted."""
    data = cohort_records(folder)
    cache_rate = float(way == "cached")
    transform = train_transforms(tuple(BRATS), mode="idt", roi_size=[size] * 3, augment="published")
    dataset = SeededCacheDataset(
        data=data,
        transform=transform,
        store=CaseStore(folder.parent / "store" if way == "stored" else None, transform),
        seed=0,
        cache_rate=cache_rate,
        copy_cache=False,
        progress=False,
    )
    loader = DataLoader(dataset, batch_size=1, shuffle=False, num_workers=0)
    seconds: list[float] = []
    for epoch in range(1 + -(-samples // len(data))):
        batches = iter(loader)
        taken = [cpu_seconds(lambda: next(batches)) for _ in data]  # noqa: B023
        seconds += taken if epoch > 0 else []
    return seconds[:samples]


def step_seconds(name: str, kind: str, size: int, repeats: int) -> list[float]:
    torch.manual_seed(0)
    step = training_step(build_method(build_network(name), kind, "auto").train(), size)
    step()
    return [cpu_seconds(step) for _ in range(repeats)]


def describe(values: list[float], factor: float = 1.0) -> str:
    low, middle, high = (factor * f(values) for f in (min, statistics.median, max))
    return f"{middle:.3g} ({low:.3g} to {high:.3g}), n = {len(values)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["rfnet", "mmformer", "unet"], choices=list(NETWORKS))
    parser.add_argument("--steps", nargs="+", default=["plain", "passion"], choices=["baseline", "plain", "passion"])
    parser.add_argument("--shape", nargs=3, type=int, default=[240, 240, 155], help="voxels of a case")
    parser.add_argument("--size", type=int, default=80, help="edge of a training patch")
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="write the results to this file as well")
    args = parser.parse_args()
    results: dict[str, Any] = {"loading": {}, "steps": {}}
    unit = conv_unit()
    unit()
    results["unit"] = [cpu_seconds(unit) for _ in range(5)]
    per_second = 1 / statistics.median(results["unit"])
    print(f"{torch.get_num_threads()} thread(s), cases {args.shape}, patches {args.size}^3; conv units per sample\n")
    with tempfile.TemporaryDirectory() as folder:
        cohort = write_cohort(Path(folder) / "phantom", cases=args.cases, shape=args.shape)
        for name in WAYS:
            seconds = loading_seconds(cohort, args.size, name, args.samples)
            results["loading"][name] = seconds
            print(f"loading, {name}: {describe(seconds, per_second)}", flush=True)
    for network in args.networks:
        for kind in ["baseline"] if network == "unet" else args.steps:
            seconds = step_seconds(network, kind, args.size, args.repeats)
            results["steps"][f"{network} {kind}"] = seconds
            print(f"{network}, {kind} step: {describe(seconds, per_second)}")
            for name, loading in results["loading"].items():
                ratio = statistics.median(seconds) / statistics.median(loading)
                print(f"  {name}: {ratio:.1f} times the training rate: {'met' if ratio >= TARGET else 'MISSED'}")
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
