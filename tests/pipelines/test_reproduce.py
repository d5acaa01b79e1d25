"""The recipes of the papers run on a phantom, and one that is killed ends as one that is not."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medmap_monai.recipes.run_plan import FINISHED
from tests.pipelines.recipes import REPOSITORY

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--phantom", "--device", "cpu")
# the one that is killed: few slices, one missing-rate combination, enough epochs and cases to be in the middle of them
EPOCHS, CASES = 10, 6
HEART = (*SMALL, "--task", "myops2020", "--combinations", "357", "--protocols", "clinical", "--epochs", str(EPOCHS))
HEART = (*HEART, "--phantom-cases", str(5 + CASES), "--folds", f"5/0/{CASES}")
PATIENCE = 240.0
PROTOCOLS = ("clinical", "legacy")


def script(name: str, *options: str) -> list[str]:
    return [sys.executable, str(REPOSITORY / "pipelines" / f"reproduce_{name}.py"), *options, "--output", "out"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def states(output: Path) -> dict[str, str]:
    """Step name -> state."""
    contents = [json.loads(path.read_text()) for path in output.rglob("*step.json")]
    return {content["step"]: content["state"] for content in contents}


def check_run(folder: Path, protocol: str, subsets: int, hd95_empty: str) -> None:
    summary = json.loads((folder / protocol / "summary.json").read_text())
    assert summary["synthetic"] is True
    assert summary["protocol"] == protocol
    assert summary["edge_cases"]["hd95_empty"] == hd95_empty
    assert len(summary["subsets"]) == subsets
    assert not rows(folder / protocol / "failures.csv")


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PASSION's experiment on the heart, from beginning to end without interruption."""
    folder = tmp_path_factory.mktemp("heart")
    done = subprocess.run(script("passion", *HEART), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "say nothing about patients or the paper" in done.stdout
    return folder / "out"


def test_passion(heart: Path, run_command: Run) -> None:
    run = heart / "runs" / "mr357" / "unet_passion" / "seed1037"
    check_run(run, "clinical", 7, "diagonal")
    assert len({row["case_id"] for row in rows(run / "clinical" / "metrics.csv")}) == CASES
    split = rows(heart / "splits" / "mr357.csv")
    assert [row["fold"] for row in split] == ["train"] * 5 + ["test"] * CASES
    assert {row["rates"] for row in split if row["fold"] == "train"} == {"bssfp=0.3 lge=0.5 t2=0.7"}
    assert {row["epoch"] for row in rows(run / "training.csv")} == {str(n) for n in range(1, EPOCHS + 1)}
    assert set(states(heart).values()) == {FINISHED}
    page = heart / "reports" / "mr357_clinical.html"
    assert "synthetic" in page.read_text().lower()
    table = heart / "reports" / "mr357_clinical_files" / "table_dice"
    assert {row["run"] for row in rows(table.with_suffix(".csv"))} == {"ModalityUNet + PASSION"}
    assert "SYNTHETIC" in table.with_suffix(".tex").read_text()
    done = run_command(*script("passion", *HEART), cwd=heart.parent)  # nothing is done twice
    assert "$ " not in done.stdout
    assert done.stdout.count("done: ") == len(states(heart))


def test_a_changed_setting_is_not_mixed_with_old_results(heart: Path, run_command: Run) -> None:
    done = run_command(*script("passion", *HEART, "--seeds", "1037", "--epochs", "5"), cwd=heart.parent, check=False)
    assert done.returncode == 1
    assert f"settings.epochs was {EPOCHS}, is now 5" in done.stderr
    assert "$ " not in done.stdout
    done = run_command(*script("passion", *HEART, "--dry-run", "--epochs", "5"), cwd=heart.parent)
    assert "train/mr357/unet_passion/seed1037 (changed)" in done.stdout
    assert "split/mr357 (done)" in done.stdout


def test_a_recipe_that_is_killed_ends_with_the_same_result(heart: Path, tmp_path: Path, run_command: Run) -> None:
    output = tmp_path / "out"
    run = output / "runs" / "mr357" / "unet_passion" / "seed1037"
    # cohort and split as they are there; results may move
    shutil.copytree(heart, output, ignore=shutil.ignore_patterns("runs", "reports", "logs"))
    moment = random.Random(1037)
    epoch, case = moment.randrange(2, EPOCHS // 2), moment.randrange(1, CASES // 2 + 1)  # well before the end

    def trained() -> bool:
        log = run / "training.csv"
        return log.is_file() and max(int(row["epoch"]) for row in rows(log)) >= epoch

    def evaluated() -> bool:
        return len(list((run / "clinical" / "cases").glob("[!.]*.csv"))) >= case

    kill_when(trained, tmp_path)
    assert states(output)["train/mr357/unet_passion/seed1037"] == "started"
    assert torch.load(run / "models" / "checkpoint.pt", weights_only=True)["epoch"] < EPOCHS
    kill_when(evaluated, tmp_path)
    assert states(output)["train/mr357/unet_passion/seed1037"] == FINISHED
    assert not (run / "clinical" / "metrics.csv").exists()
    run_command(*script("passion", *HEART), cwd=tmp_path)

    same = heart / "runs" / "mr357" / "unet_passion" / "seed1037"
    expected = torch.load(same / "models" / "model.pt", weights_only=True)
    found = torch.load(run / "models" / "model.pt", weights_only=True)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    for name in ("training.csv", "clinical/metrics.csv", "clinical/failures.csv"):
        assert (run / name).read_bytes() == (same / name).read_bytes(), name
    table = "reports/mr357_clinical_files/table_dice.tex"
    assert (output / table).read_bytes() == (heart / table).read_bytes()
    assert states(output) == states(heart)


def kill_when(condition: Callable[[], bool], folder: Path) -> None:
    """Start the recipe, and kill it and all its processes as soon as the condition holds."""
    with (folder / "killed.log").open("a") as log:
        recipe = subprocess.Popen(script("passion", *HEART), cwd=folder, stdout=log, stderr=log, start_new_session=True)
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            break
        assert recipe.poll() is None, f"ended before it could be killed:\n{(folder / 'killed.log').read_text()}"
        pause.wait(0.01)
    os.killpg(recipe.pid, signal.SIGKILL)
    assert recipe.wait() == -signal.SIGKILL
    with (folder / "out" / ".lock").open() as lock:  # held until the last of its processes is gone
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_medmap(tmp_path: Path, run_command: Run) -> None:
    options = (*SMALL, "--epochs", "1", "--phantom-cases", "6", "--folds", "4/0/2", "--protocols", "clinical")
    run_command(*script("medmap", *options, "--only", "kd_fixed"), cwd=tmp_path)
    run = tmp_path / "out" / "runs" / "complete" / "kd_fixed" / "seed1037"
    check_run(run, "clinical", 15, "diagonal")
    assert (run / "models" / "teacher.pt").is_file()
    assert {row["available"] for row in rows(tmp_path / "out" / "splits" / "complete.csv")} == {""}
    assert set(states(tmp_path / "out").values()) == {FINISHED}


def test_dmafnet_in_both_protocols(tmp_path: Path, run_command: Run) -> None:
    options = (*SMALL, "--task", "myops2020", "--combinations", "753", "--only", "dmafnet")
    options = (*options, "--epochs", "1", "--phantom-cases", "5", "--folds", "3/0/2")
    run_command(*script("dmafnet", *options), cwd=tmp_path)
    run = tmp_path / "out" / "runs" / "mr753" / "dmafnet" / "seed1037"
    check_run(run, "clinical", 7, "diagonal")
    check_run(run, "legacy", 7, "1.0")
    assert json.loads((run / "settings.json").read_text())["protocol"] == "legacy"
    for protocol in PROTOCOLS:
        page = (tmp_path / "out" / "reports" / f"mr753_{protocol}.html").read_text()
        assert f"trained legacy, evaluated {protocol}" in page
    # scores of a network that hardly trained may be alike, windows and their weights are not
    used = [json.loads((run / protocol / "settings.json").read_text())["inference"] for protocol in PROTOCOLS]
    assert used[0] != used[1]
