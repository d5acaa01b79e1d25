"""The tables of ``bench_gpu.py``: this project's numbers beside the published scripts', which are quoted.

python benchmarks/bench_gpu_tables.py gpu.json    # the tables of an earlier run
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

# Published scripts at 80^3, batch 1, four modalities: ms per training step and GiB; with cudnn.benchmark, ms.
# Seconds of all 15 subsets of a 240 x 240 x 155 volume, cropped to the brain. Measured by this project's authors.
QUOTED_ON = "NVIDIA H100 (80 GB), PyTorch 2.11"
PUBLISHED_STEP = {
    ("rfnet", "passion"): (471.0, 479.0, 12.5),
    ("rfnet", "plain"): (210.0, 161.0, 4.3),
    ("mmformer", "passion"): (369.0, 328.0, 7.5),
    ("mmformer", "plain"): (181.0, 169.0, 3.8),
}
PUBLISHED_SWEEP = {"rfnet": 20.4, "mmformer": 17.7}
TARGETS = {"passion": 5.0, "plain": 4.0, "sweep": 10.0}


def variant(row: dict[str, Any]) -> str:
    """How a row differs from the plainest one, in words."""
    words = [row.get("precision", "float32")]
    words += ["recorded"] if row.get("recorded") else []
    words += ["channels-last"] if row.get("channels_last") else []
    words += ["cudnn.benchmark"] if row.get("benchmark") else []
    words += [f"batch {row['rows']}"] if row.get("rows", 1) > 1 else []
    words += [f"{row['present']} of 4 present"] if row.get("present", 4) < 4 else []
    return ", ".join(words)


def unit_of(row: dict[str, Any], unit: float) -> float:
    """The conv unit beside which a row was measured: its own where it comes from a later run."""
    return statistics.median(row["unit_ms"]) if "unit_ms" in row else unit


def markdown(result: dict[str, Any]) -> str:
    """All tables of one run, or of several put together, each later row with its own ``unit_ms``."""
    machine, unit = result["machine"], statistics.median(result["unit_ms"])
    memory = "" if machine["memory_gib"] is None else f" ({machine['memory_gib']:.0f} GiB)"
    lines = [
        f"{machine['device']}{memory}, PyTorch {machine['torch']}, windows of {result['size']}³; one conv unit took"
    ]
    lines += [f"{unit:.3f} ms. Published scripts: quoted, measured on an {QUOTED_ON}.", ""]
    rows = result["rows"]
    lines += _steps([row for row in rows if row["kind"] not in ("sweep", "prediction", "epoch")], unit)
    lines += _inference([row for row in rows if row["kind"] in ("sweep", "prediction")], unit, result["shape"])
    lines += _epochs(rows, unit)
    lines += _profiles(rows)
    failed = [row for row in rows if "error" in row or "left_out" in row]
    lines += [f"- {r['network']} {r['kind']}, {variant(r)}: {r.get('error') or r['left_out']}" for r in failed]
    return "\n".join(lines) + "\n"


def _steps(rows: list[dict[str, Any]], unit: float) -> list[str]:
    lines = [
        "| training step | variant | ms, median (spread) | conv units | GiB | published ms, GiB | ratio | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "ms" not in row:
            continue
        ms = statistics.median(row["ms"])
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        spread = f"{min(row['ms']):.1f} to {max(row['ms']):.1f}"
        text = f"| {row['network']}, {row['kind']} | {variant(row)} | {ms:.1f} ({spread}) |"
        text += f" {ms / unit_of(row, unit):.0f} | {peak} |"
        published = PUBLISHED_STEP.get((row["network"], row["kind"]))
        if published is None or row.get("rows", 1) > 1 or row.get("present", 4) < 4:
            lines.append(f"{text} | | |")
            continue
        ratio, target = min(published[:2]) / ms, TARGETS[row["kind"]]
        verdict = "met" if ratio >= target else f"missed: {target:.0f}x"
        lines.append(f"{text} {published[0]:.0f}, {published[2]:.1f} | {ratio:.1f}x | {verdict} |")
    return [*lines, ""]


def _inference(rows: list[dict[str, Any]], unit: float, shape: list[int]) -> list[str]:
    size = "x".join(map(str, shape))
    lines = [
        f"| one case of {size} | variant | windows at once | s, median | conv units | GiB | published s | ratio | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "s" not in row:
            continue
        s = statistics.median(row["s"])
        name = "all 15 subsets" if row["kind"] == "sweep" else "prediction, GPU part"
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        text = f"| {row['network']}, {name} | {variant(row)} | {row['windows']} |"
        text += f" {s:.2f} | {1000 * s / unit_of(row, unit):.0f} | {peak} |"
        published = PUBLISHED_SWEEP.get(row["network"]) if row["kind"] == "sweep" else None
        if published is None:
            verdict = "" if row["kind"] == "sweep" else "met" if s <= 0.4 else "missed: 0.4 s"
            lines.append(f"{text} | | {verdict} |")
            continue
        ratio = published / s
        lines.append(f"{text} {published} | {ratio:.1f}x | {'met' if ratio >= TARGETS['sweep'] else 'missed: 10x'} |")
    return [*lines, ""]


def _epochs(rows: list[dict[str, Any]], unit: float) -> list[str]:
    """Iterations of a whole training, loader included, beside the bare step of the same network and precision."""
    lines = [
        "| training with its loader | augmentation | workers | ms per iteration | conv units | the step alone takes |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "epoch_ms" not in row:
            continue
        bare = [
            statistics.median(r["ms"])
            for r in rows
            if "ms" in r and (r["network"], r["kind"]) == (row["network"], "passion") and r.get("recorded")
            if variant(r) == f"{row['precision']}, recorded"
        ]
        where = f"{row['augment']}, {'on the device' if row['on_device'] else 'in workers'}"
        share = f"{bare[0]:.1f} ms, {100 * bare[0] / row['epoch_ms']:.0f} %" if bare else ""
        text = f"| {row['network']}, passion, {row['precision']} | {where} | {row['workers']} |"
        lines.append(f"{text} {row['epoch_ms']:.1f} | {row['epoch_ms'] / unit_of(row, unit):.0f} | {share} |")
    return [*lines, ""] if len(lines) > 2 else []


def _profiles(rows: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for row in rows:
        if "kernels" not in row:
            continue
        profile = row["kernels"]
        lines += [
            f"{row['network']} {row['kind']}, {variant(row)}: {profile['kernels']} kernels per step, busy for "
            f"{profile['busy_ms']:.1f} ms, {100 * profile['busy_share']:.0f} % of the step.",
            "",
            "| kernel | calls | ms |",
            "|---|---|---|",
        ]
        lines += [f"| `{k['name'].replace('|', '/')}` | {k['calls']} | {k['ms']:.2f} |" for k in profile["top"][:8]]
        lines.append("")
    return lines


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
