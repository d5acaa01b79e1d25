"""Training steps, sweeps and prediction on the GPU at hand: milliseconds, and ratios to a conv unit beside.

The most important rows come first. What does not fit into ``--seconds`` is left out and named, and a row that fails
says why while the others go on. Published numbers are quoted with the machine they were measured on. One conv unit is
forward and backward of Conv3d(8, 8, 3) + InstanceNorm3d + LeakyReLU on a (1, 8, 80, 80, 80) input. Without a GPU
everything runs small on the CPU, which says nothing about speed.

    python benchmarks/bench_gpu.py --seconds 280 --json gpu.json --markdown gpu.md
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from bench_gpu_tables import markdown, variant
from bench_passion import build_method, build_network, conv_unit
from torch import Tensor

from medmap_monai.engines.captured_step import CapturedStep
from medmap_monai.inferers.modality_sliding_window import ModalitySlidingWindowInferer
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.methods.base import MethodOutput

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Measure = Callable[[], dict[str, Any]]


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds(task: Callable[[], object]) -> float:
    wait()
    start = time.perf_counter()
    task()
    wait()
    return time.perf_counter() - start


def repeated(task: Callable[[], object], repeats: int, limit: float = 6.0) -> list[float]:
    """Seconds of up to ``repeats`` calls, fewer where they would take longer than ``limit`` in all."""
    values: list[float] = []
    while len(values) < repeats and sum(values) < limit:
        values.append(seconds(task))
    return values


def peak(reset: bool = False) -> float | None:
    """GiB of device memory since the last reset."""
    if DEVICE.type != "cuda":
        return None
    if reset:
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated() / 2**30


def total(output: MethodOutput) -> Tensor:
    return torch.stack(list(output.losses.values())).sum()


def autocast(precision: str) -> Any:
    if precision == "float32" or DEVICE.type == "cpu":  # bfloat16 is slower than slow on most CPUs
        return nullcontext()
    return torch.autocast(DEVICE.type, dtype=getattr(torch, precision))


def training_batch(size: int, rows: int, present: int) -> dict[str, Tensor]:
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, size)] * 3, indexing="ij")).norm(dim=0)
    label = torch.bucketize(-grid, torch.tensor([-0.8, -0.5, -0.3]))[None, None]  # nested balls, all four classes
    mask = torch.zeros(rows, 4, dtype=torch.bool)
    mask[:, :present] = True
    image = torch.randn(rows, 4, size, size, size) * mask.reshape(rows, 4, 1, 1, 1)
    batch = {
        "image": image,
        "modality_mask": mask,
        "present_mask": mask.clone(),
        "label": label.expand(rows, -1, -1, -1, -1),
    }
    return {name: tensor.to(DEVICE) for name, tensor in batch.items()}


def make_step(spec: dict[str, Any], size: int) -> tuple[Callable[[], Tensor], CapturedStep | None]:
    """A whole optimiser step of ``spec``, which returns the loss, and the recorder where steps are recorded."""
    torch.manual_seed(0)
    method = build_method(build_network(spec["network"]), spec["kind"], "auto").train().to(DEVICE)
    batch = training_batch(size, spec.get("rows", 1), spec.get("present", 4))
    if spec.get("channels_last"):
        method = method.to(memory_format=torch.channels_last_3d)
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-4, amsgrad=True)
    precision = spec.get("precision", "float32")
    captured = CapturedStep(method, total, autocast=lambda: autocast(precision)) if spec.get("recorded") else None

    def step() -> Tensor:
        if captured is not None:
            loss = captured(batch, "all").loss
        else:
            optimizer.zero_grad()
            with autocast(precision):
                loss = total(method(**batch))
            loss.backward()
            loss = loss.detach()
        optimizer.step()
        return loss

    return step, captured


def measure_step(spec: dict[str, Any], size: int, repeats: int) -> dict[str, Any]:
    torch.backends.cudnn.benchmark = bool(spec.get("benchmark"))
    peak(reset=True)
    step, captured = make_step(spec, size)
    torch.manual_seed(1)
    losses: list[float] = []
    first = seconds(lambda: losses.append(float(step())))
    second = seconds(lambda: losses.append(float(step())))  # where steps are recorded, this one is
    losses.append(float(step()))
    result = {"ms": [1000 * s for s in repeated(step, repeats)], "first_s": first, "second_s": second}
    result |= {"peak_gib": peak(), "losses": losses}
    if captured is not None:
        result["recorded"] = captured.recorded
        if captured.recorded == 0:
            raise RuntimeError(f"the step was not recorded; {result}")
    if spec.get("profile"):
        result["kernels"] = profile(step, statistics.median(result["ms"]))
    torch.backends.cudnn.benchmark = False
    return result


def profile(step: Callable[[], object], milliseconds: float) -> dict[str, Any]:
    """Kernels of one step, how long they keep the device busy, and the most expensive ones."""
    kind = torch.profiler.ProfilerActivity.CUDA if DEVICE.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profiler:
        step()
        wait()
    cuda = torch.autograd.DeviceType.CUDA
    kernels = [e for e in profiler.events() if DEVICE.type == "cpu" or e.device_type == cuda]
    by_name: dict[str, list[float]] = {}
    for event in kernels:
        spent = event.self_cpu_time_total if DEVICE.type == "cpu" else event.time_range.elapsed_us()
        by_name.setdefault(event.name, []).append(spent / 1000)
    busy = sum(sum(times) for times in by_name.values())
    top = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:12]
    return {
        "kernels": len(kernels),
        "busy_ms": busy,
        "busy_share": busy / milliseconds,
        "top": [{"name": name[:110], "calls": len(times), "ms": sum(times)} for name, times in top],
    }


def brain(shape: list[int]) -> Tensor:
    """A volume (1, 4, ...) with an ellipsoid of noise and nothing around it, about as large as a brain in BraTS."""
    torch.manual_seed(0)
    axes = [torch.linspace(-1, 1, n) for n in shape]
    inside = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(dim=0) < 0.45
    return (torch.randn(1, 4, *shape) * inside).to(DEVICE)


def measure_inference(spec: dict[str, Any], shape: list[int], window: int, repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    network = build_network(spec["network"]).eval().to(DEVICE)
    image, precision = brain(shape), spec.get("precision", "float32")
    present = torch.ones(1, 4, dtype=torch.bool, device=DEVICE)
    inferer: Any
    if spec["kind"] == "sweep":
        inferer = SubsetSweepInferer([window] * 3, sw_batch_size=spec["windows"], memory_limit=spec.get("limit", 2**33))
    else:
        inferer = ModalitySlidingWindowInferer([window] * 3, sw_batch_size=spec["windows"])

    def run() -> None:
        with torch.no_grad(), autocast(precision):
            inferer(image, network, present)

    first = seconds(run)
    peak(reset=True)
    return {"s": repeated(run, repeats, limit=10.0), "first_s": first, "peak_gib": peak()}


def specs() -> list[dict[str, Any]]:
    """What is measured, the most important first."""
    bf16 = {"precision": "bfloat16"}
    rows: list[dict[str, Any]] = []
    for network in ("rfnet", "mmformer"):
        step = {"network": network, "kind": "passion"}
        rows += [step | {"profile": True}, step | {"recorded": True, "profile": True}, step | bf16 | {"recorded": True}]
        rows += [{"network": network, "kind": "sweep", "windows": "auto"} | bf16]
        rows += [{"network": network, "kind": "prediction", "windows": "auto"} | bf16]
    epoch = {"kind": "epoch", "workers": 2, "steps": 40, "epochs": 4, "augment": "published", "on_device": True, **bf16}
    rows += [{"network": "rfnet"} | epoch]  # augmentation on the device
    for network in ("rfnet", "mmformer", "m2ftrans", "unet"):
        plain = {"network": network, "kind": "baseline" if network == "unet" else "plain"}
        rows += [plain | {"recorded": True}, plain | bf16 | {"recorded": True}, plain]
    step = {"network": "m2ftrans", "kind": "passion"}
    rows += [step | {"recorded": True}, step | bf16 | {"recorded": True}, step]
    step = {"network": "rfnet", "kind": "passion"}
    rows += [
        step | bf16 | {"recorded": True, "channels_last": True},
        step | bf16,
        step | bf16 | {"channels_last": True},
    ]
    rows += [step | {"recorded": True, "present": 2}, step | {"recorded": True, "rows": 2}]
    rows += [step | bf16 | {"recorded": True, "benchmark": True, "profile": True}]
    rows += [
        {"network": "rfnet", "kind": "sweep", "windows": 4},
        {"network": "rfnet", "kind": "sweep", "windows": 16} | bf16,
    ]
    rows += [
        {"network": "rfnet", "kind": "sweep", "windows": 16},
        {"network": "mmformer", "kind": "sweep", "windows": 16},
    ]
    rows += [step | bf16 | {"recorded": True, "rows": 8}, step | {"recorded": True, "rows": 8}]
    rows += [{"network": "mmformer", "kind": "passion", "benchmark": True, "recorded": True} | bf16]
    rows += [{"network": "m2ftrans", "kind": "sweep", "windows": "auto"} | bf16]
    rows += [{"network": "mmformer", "kind": "passion"} | bf16 | {"recorded": True, "channels_last": True}]
    rows += [{"network": "unet", "kind": "sweep", "windows": "auto"} | bf16]
    for network, number in (("rfnet", 2), ("mmformer", 8), ("mmformer", 2)):
        rows += [{"network": network, "kind": "passion", "recorded": True, "rows": number} | bf16]
    rows += [{"network": "rfnet"} | epoch | {"workers": 8}, {"network": "rfnet"} | epoch | {"on_device": False}]
    return rows


def machine() -> dict[str, Any]:
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if DEVICE.type == "cuda" else None
    return {"device": name, "memory_gib": memory, "torch": torch.__version__, "cuda": torch.version.cuda}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    small = DEVICE.type == "cpu"
    parser.add_argument("--seconds", type=float, default=280.0, help="no row starts when it might end later")
    parser.add_argument("--size", type=int, default=16 if small else 80, help="edge of a training patch and a window")
    parser.add_argument("--shape", nargs=3, type=int, default=[24, 24, 16] if small else [240, 240, 155])
    parser.add_argument("--repeats", type=int, default=1 if small else 6)
    parser.add_argument("--rows", type=int, help="stop after that many rows")
    parser.add_argument("--skip", type=int, default=0, help="leave out that many rows, such as those of an earlier run")
    parser.add_argument("--networks", nargs="+", help="these networks only")
    parser.add_argument("--kinds", nargs="+", help="these kinds only: passion, plain, sweep, ...")
    parser.add_argument("--variants", nargs="+", help="these variants only, by part of their words: 'batch 8'")
    parser.add_argument("--json", help="write the results to this file, anew after every row")
    parser.add_argument("--markdown", help="write the tables to this file")
    args = parser.parse_args()
    start = time.perf_counter()
    unit = conv_unit(str(DEVICE))
    repeated(unit, 3)
    result: dict[str, Any] = {"machine": machine(), "size": args.size, "shape": args.shape, "rows": []}
    result["unit_ms"] = [1000 * s for s in repeated(unit, 20, limit=2.0)]
    slowest = 0.0
    chosen = [spec for spec in specs() if args.networks is None or spec["network"] in args.networks]
    chosen = [spec for spec in chosen if args.kinds is None or spec["kind"] in args.kinds]
    if args.variants is not None:
        chosen = [spec for spec in chosen if any(words in variant(spec) for words in args.variants)]
    chosen = chosen[args.skip :][: args.rows]
    for spec in chosen:
        row: dict[str, Any] = dict(spec)
        before = time.perf_counter()
        if before - start + min(slowest, 25.0) > args.seconds:
            row["left_out"] = "no time left"
        elif small and spec.get("recorded"):
            row["left_out"] = "steps are recorded on a GPU only"
        else:
            try:
                if spec["kind"] in ("sweep", "prediction"):
                    row |= measure_inference(spec, args.shape, args.size, min(args.repeats, 3))
                elif spec["kind"] == "epoch":
                    from bench_gpu_epoch import measure_epoch  # needs scipy, which the other rows do not

                    short = {"steps": 2, "epochs": 1, "workers": 0} if small else {}
                    brain_box = [24] * 3 if small else [144, 176, 144]
                    row |= measure_epoch(spec | short, DEVICE, args.size, brain_box)
                else:
                    row |= measure_step(spec, args.size, args.repeats)
            except Exception as error:  # the other rows are still worth having
                row["error"] = f"{type(error).__name__}: {error}"[:600]
            gc.collect()
            if DEVICE.type == "cuda":
                torch.cuda.empty_cache()
            row["took_s"] = time.perf_counter() - before
            slowest = max(slowest, row["took_s"])
        result["rows"].append(row)
        unit()
        if args.json:
            Path(args.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
        if args.markdown:
            Path(args.markdown).write_text(markdown(result), encoding="utf-8")
    print(markdown(result))


if __name__ == "__main__":
    main()
