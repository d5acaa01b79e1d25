"""Every benchmark runs, at a size that says nothing about speed, and reports what it claims to report."""

from __future__ import annotations

import csv
import importlib
import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medmap_monai.data.phantom import ensure_cohort
from medmap_monai.networks.unet import ModalityUNet

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
TESTED = [
    "bench_gpu",
    "bench_gpu_epoch",
    "bench_gpu_tables",
    "bench_growth",
    "bench_loading",
    "bench_networks",
    "bench_passion",
    "bench_torchrun",
    "loss_gradients",
    "medmap_pilot",
    "position_share",
]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script of ``benchmarks/`` by name, its rows computed in this process."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        module = importlib.import_module(name)
        if hasattr(module, "ProcessPoolExecutor"):
            monkeypatch.setattr(module, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))
        if hasattr(module, "conv_unit"):
            monkeypatch.setattr(
                module, "conv_unit", partial(importlib.import_module("bench_passion").conv_unit, size=16)
            )
        return module

    return load


def run(module: ModuleType, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *arguments.split()])
    module.main()


def test_every_script_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == TESTED


def test_networks(benchmark, monkeypatch, tmp_path, capsys) -> None:
    module = benchmark("bench_networks")
    run(module, f"--networks rfnet --size 16 --repeats 2 --json {tmp_path / 'out.json'}", monkeypatch)
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [row["task"] for row in rows] == [module.ONE, module.FOUR, module.SWEEP, module.STEP]
    printed = capsys.readouterr().out
    for row in rows:
        assert len(row["units"]) == 2
        assert min(row["units"]) > 0
        assert f"| rfnet | {row['task']} | {statistics.median(row['units']):.1f} " in printed
    sweep, one = statistics.median(rows[2]["units"]), statistics.median(rows[0]["units"])
    assert sweep > one


def test_networks_compares_with_the_published_cost(benchmark) -> None:
    module = benchmark("bench_networks")
    row = {"network": "rfnet", "task": module.SWEEP, "units": [100.0, 109.0, 130.0], "peak_gib": 1.0}
    assert module.describe(row, 80).endswith("| 330 | 110 | met |")
    assert module.describe({**row, "units": [111.0]}, 80).endswith("| 330 | 110 | MISSED |")
    assert module.describe(row, 32).endswith("| | | |")  # other sizes have no published cost


def test_passion(benchmark, monkeypatch, tmp_path) -> None:
    arguments = f"--networks rfnet --size 16 --repeats 1 --students checkpoint --json {tmp_path / 'out.json'}"
    run(benchmark("bench_passion"), arguments, monkeypatch)
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [row["step"] for row in rows] == ["plain", "passion"]
    assert all(row["units"][0] > 0 and row["peak_gib"] > 0 for row in rows)


def test_loading(benchmark, monkeypatch, tmp_path, capsys) -> None:
    arguments = f"--networks unet --shape 24 24 24 --size 16 --cases 2 --samples 3 --json {tmp_path / 'out.json'}"
    run(benchmark("bench_loading"), arguments, monkeypatch)
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert {name: len(seconds) for name, seconds in result["loading"].items()} == {
        "decoded": 3,
        "stored": 3,
        "cached": 3,
    }
    ratio = statistics.median(result["steps"]["unet baseline"]) / statistics.median(result["loading"]["cached"])
    assert f"cached: {ratio:.1f} times the training rate" in capsys.readouterr().out


def test_growth(benchmark, monkeypatch, tmp_path) -> None:
    sizes = "--voxels 1 2 --cases 1 2 --subsets 1 3 --shape 20 20 20 --volume 32 32 32 --repeats 1"
    run(benchmark("bench_growth"), f"--network unet --window 16 {sizes} --json {tmp_path / 'out.json'}", monkeypatch)
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(result) == ["voxels", "cases", "subsets", "peak_gib"]
    assert min(result.pop("peak_gib").values()) > 0
    assert all(min(seconds) > 0 for row in result.values() for seconds in row["seconds"].values())


def test_growth_tells_a_line_from_a_parabola(benchmark) -> None:
    fit = benchmark("bench_growth").fit
    sizes = [1, 2, 4, 8]
    line = fit(sizes, [3.0 + 2.0 * n for n in sizes])
    assert line["slope"] == pytest.approx(2)
    assert line["intercept"] == pytest.approx(3)
    assert line["residual"] == pytest.approx(0, abs=1e-9)
    assert line["exponent"] < 1
    parabola = fit(sizes, [float(n**2) for n in sizes])
    assert parabola["exponent"] == pytest.approx(2)
    assert parabola["residual"] > 0.5


def test_gpu_runs_small_without_one(benchmark, monkeypatch, tmp_path, capsys) -> None:
    module = benchmark("bench_gpu")
    monkeypatch.setattr(module, "DEVICE", torch.device("cpu"))
    files = f"--json {tmp_path / 'gpu.json'} --markdown {tmp_path / 'gpu.md'}"
    small = "--size 16 --shape 20 20 16 --repeats 1"
    run(module, f"--networks rfnet --rows 6 --seconds 120 {small} {files}", monkeypatch)
    result = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    done = {row["kind"]: row for row in result["rows"] if "left_out" not in row}
    assert [kind for kind in done if kind != "epoch"] == ["passion", "sweep", "prediction"]  # its test follows
    assert not [row["error"] for row in result["rows"] if "error" in row]
    assert done["passion"]["losses"][0] > done["passion"]["losses"][2] > 0  # it trains
    assert done["passion"]["kernels"]["kernels"] > 1000
    assert min(done["sweep"]["s"] + done["prediction"]["s"]) > 0
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    assert "recorded on a GPU only" in table


def test_gpu_trains_with_its_loader(benchmark, monkeypatch, tmp_path, capsys) -> None:
    module = benchmark("bench_gpu")
    monkeypatch.setattr(module, "DEVICE", torch.device("cpu"))
    epoch = {"network": "unet", "kind": "epoch", "precision": "bfloat16", "augment": "published", "workers": 0}
    epoch["on_device"] = True
    monkeypatch.setattr(module, "specs", lambda: [epoch])
    run(module, f"--size 16 --seconds 60 --json {tmp_path / 'gpu.json'}", monkeypatch)
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    assert rows[0]["epoch_ms"] > 0, rows
    assert f"| published, on the device | 0 | {rows[0]['epoch_ms']:.1f} |" in capsys.readouterr().out


def test_gpu_leaves_out_what_does_not_fit_and_survives_failures(benchmark, monkeypatch, tmp_path) -> None:
    module = benchmark("bench_gpu")
    monkeypatch.setattr(module, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(module, "measure_step", lambda *_: 1 / 0)
    run(module, f"--networks unet --rows 2 --seconds 60 --json {tmp_path / 'gpu.json'}", monkeypatch)
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    assert [row.get("left_out", row.get("error")) for row in rows] == ["steps are recorded on a GPU only"] * 2
    monkeypatch.setattr(module, "specs", lambda: [{"network": "unet", "kind": "baseline"}] * 2)
    run(module, f"--seconds 60 --json {tmp_path / 'gpu.json'}", monkeypatch)
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    assert [row["error"] for row in rows] == ["ZeroDivisionError: division by zero"] * 2
    run(module, f"--seconds 0 --json {tmp_path / 'gpu.json'}", monkeypatch)
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    assert [row["left_out"] for row in rows] == ["no time left"] * 2


def test_gpu_tables_judge_by_the_published_numbers(benchmark) -> None:
    step = {"network": "rfnet", "kind": "passion", "precision": "bfloat16", "recorded": True, "peak_gib": 2.0}
    rows = [step | {"ms": [90.0, 94.0, 99.0]}, step | {"ms": [95.0]}, step | {"ms": [90.0], "rows": 2}]
    sweep = {"network": "mmformer", "kind": "sweep", "windows": 16, "peak_gib": 2.0}
    rows += [sweep | {"s": [1.77]}, sweep | {"s": [1.9]}, sweep | {"kind": "prediction", "s": [0.41]}]
    machine = {"device": "X", "memory_gib": 80.0, "torch": "2", "cuda": "13"}
    text = benchmark("bench_gpu_tables").markdown(
        {"machine": machine, "unit_ms": [2.0], "size": 80, "shape": [240, 240, 155], "rows": rows}
    )
    met = "| rfnet, passion | bfloat16, recorded | 94.0 (90.0 to 99.0) | 47 | 2.0 | 471, 12.5 | 5.0x | met |"
    assert met in text
    assert "471, 12.5 | 5.0x | missed: 5x |" in text
    assert "| rfnet, passion | bfloat16, recorded, batch 2 | 90.0 (90.0 to 90.0) | 45 | 2.0 | | |" in text
    assert "| 1.77 | 885 | 2.0 | 17.7 | 10.0x | met |" in text
    assert "| 9.3x | missed: 10x |" in text
    assert "missed: 0.4 s" in text


def test_torchrun_worker(benchmark, monkeypatch, tmp_path) -> None:
    module = benchmark("bench_torchrun")
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    small = "--network unet --step baseline --size 16 --repeats 2 --steps-per-repeat 1"
    run(module, f"{small} --worker {tmp_path / 'out.json'}", monkeypatch)
    assert np.all(np.array(json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))) > 0)


@pytest.mark.parametrize(("two", "verdict"), [(1.9, "1.90 times one process: met"), (1.7, "MISSED")])
def test_torchrun_verdict(benchmark, monkeypatch, capsys, two: float, verdict: str) -> None:
    module = benchmark("bench_torchrun")
    monkeypatch.setattr(module, "rates", lambda processes, *_: [1.0] if processes == 1 else [two])
    run(module, "", monkeypatch)
    assert verdict in capsys.readouterr().out


def test_pilot(benchmark, monkeypatch, tmp_path) -> None:
    small = "--settings none L0 --size 16 --train-cases 2 --test-cases 2 --steps 2 --batch 2"
    run(benchmark("medmap_pilot"), f"--output {tmp_path / 'pilot.csv'} {small}", monkeypatch)
    with (tmp_path / "pilot.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2


def test_benchmarks_know_every_backbone(benchmark) -> None:
    module = benchmark("bench_passion")
    assert all(isinstance(module.build_network(name), nn.Module) for name in module.NETWORKS)


def test_loss_gradients(benchmark, monkeypatch, tmp_path) -> None:
    ensure_cohort(tmp_path / "data", cases=8, shape=[16, 16, 16], seed=0)
    small = ["dataset_dir=" + json.dumps(str(tmp_path / "data")), "roi_size=[16,16,16]", "network_def#channels=[4,8]"]
    small += ["network_def#deep_supervision=0", "cache_rate=0.0", "batch_size=2"]
    arguments = f"{FOLDER.parent / 'bundles' / 'brats_dmafnet'} --overlay phantom --batches 1 --set {' '.join(small)}"
    module = benchmark("loss_gradients")
    rows = []
    for weight in (0.1, 0.2):
        path = tmp_path / f"{weight}.json"
        run(module, f"{arguments} prototype_weight={weight} --json {path}", monkeypatch)
        rows.append(json.loads(path.read_text(encoding="utf-8")))
    assert {"fused", "modality", "covariance", "attention", "prototype"} <= set(rows[0])
    assert rows[0]["all labels"]["ratio"] == pytest.approx(1.0)
    assert rows[0]["all labels"]["cosine"] == pytest.approx(1.0)
    for key in ("value", "ratio", "median ratio"):  # twice the weight, twice the pull
        assert rows[0]["prototype"][key] > 0
        assert rows[1]["prototype"][key] == pytest.approx(2 * rows[0]["prototype"][key], rel=1e-3)
    assert rows[1]["covariance"] == pytest.approx(rows[0]["covariance"], rel=1e-3)


def test_position_share(benchmark, monkeypatch, tmp_path, capsys) -> None:
    ensure_cohort(tmp_path / "data", cases=3, shape=[16, 16, 16], seed=0)
    bundle = FOLDER.parent / "bundles" / "brats_unet_dropout"
    network = ModalityUNet(3, 4, 4, channels=(4, 8), deep_supervision=0)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    given = f"checkpoint={tmp_path / 'model.pt'} roi_size=[16,16,16]"
    given += " network_def#channels=[4,8] network_def#deep_supervision=0"
    run(benchmark("position_share"), f"{tmp_path / 'data'} {bundle} --overlay phantom --set {given}", monkeypatch)
    rows = [row.split("|")[1:3] for row in capsys.readouterr().out.splitlines()[2:]]
    assert [int(level) for level, _ in rows] == [0, 1]
    assert all(0 < float(share) < 1 for _, share in rows)
