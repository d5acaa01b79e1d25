"""Every command of every how-to page is run by a test, or listed here with the reason why not."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.data.phantom import write_cohort
from tests.zoo.conftest import copy_bundle

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = REPOSITORY / "docs" / "how-to"
PROGRAMS = ("medmap", "python", "torchrun", "make", "sbatch", "hf")
# pages whose commands a test of their own runs
TESTED_IN = {
    "add-a-task": "tests/bundles/test_add_a_task.py",
    "check-a-bundle": "tests/zoo/test_docs.py",
    "publish": "tests/zoo/test_docs.py",
    "submit-to-the-zoo": "tests/bundles/test_zoo_workflows.py",
    "federated": "tests/zoo/test_docs.py",
    "from-pacs-to-segmentation": "tests/clinical/test_from_pacs_page.py",
    "monai-deploy": "tests/clinical/test_monai_deploy.py",
    "monai-label": "tests/bundles/test_monai_label.py",
    "synthetic-studies": "tests/cli/test_synth.py",
    "run-on-slurm": "tests/pipelines/test_slurm.py",
}
RUN_HERE = ("evaluate", "splits", "reproduce-a-paper", "compare-methods", "train-on-gpus")
TRAIN = "python -m monai.bundle run training --config_file configs/train.json"
NOT_RUN = {
    f"{TRAIN} --dataset_dir COHORT --split_file split.csv": (
        "full size; tests/bundles/test_commands.py runs it with the phantom overlay"
    ),
    f"{TRAIN} --dataset_dir DATA": "full size; tests/bundles/test_commands.py runs it with the phantom overlay",
    "torchrun --standalone --nproc_per_node=4 -m monai.bundle run training --config_file "
    "\"['configs/train.json','configs/multi_gpu_train.json']\" --dataset_dir DATA": (
        "full size; tests/bundles/test_commands.py runs it with two processes and the phantom overlay"
    ),
    "python pipelines/compare_methods.py --only passion --seeds 0 1 2 --processes 2": (
        "hours; tests/pipelines/test_compare_methods.py makes the smallest run"
    ),
    "python pipelines/compare_methods_table.py --runs runs/compare": (
        "needs those runs; tests/pipelines/test_compare_methods.py fills a page from runs of its own"
    ),
    "python pipelines/compare_methods.py --plan pipelines/compare_realistic.json --anatomy ANATOMY "
    "--output runs/realistic --only imbalanced": (
        "hours; tests/pipelines/test_compare_methods.py makes the smallest run"
    ),
    "python pipelines/compare_methods_table.py --plan pipelines/compare_realistic.json --runs runs/realistic": (
        "needs those runs; tests/pipelines/test_compare_methods.py makes the tables of a run of its own"
    ),
    "python pipelines/reproduce_passion.py --data BraTS2020": (
        "days on a GPU; tests/pipelines/test_reproduce.py runs the script with --phantom"
    ),
    "python pipelines/reproduce_dmafnet.py --phantom --task myops2020 --combinations 357 --output runs/trial": (
        "minutes; tests/pipelines/test_reproduce.py runs it smaller"
    ),
}
Run = Callable[..., subprocess.CompletedProcess[str]]


def commands(page: str) -> list[str]:
    """The commands of a page in their order, each once, without comments."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```(?:bash|console)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for fence in fences for line in fence.replace("\\\n", " ").splitlines()]
    found = [line.split("  #")[0].strip() for line in lines if line.split(" ")[0] in PROGRAMS]
    return list(dict.fromkeys(found))


def shown(page: str, first_word: str) -> str:
    """The block of output that begins with a word."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```\n({re.escape(first_word)}.*?)^```", text, re.DOTALL | re.MULTILINE)
    return block


def medmap(command: str) -> str:
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, f"{command}\n{result.output}"
    return result.output


def to_run(page: str) -> list[str]:
    return [command for command in commands(page) if command not in NOT_RUN]


def test_every_page_is_accounted_for() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")}
    assert pages <= {*TESTED_IN, *RUN_HERE}, "say which test runs the commands of the new page"
    assert not set(TESTED_IN) & set(RUN_HERE)
    for page in pages & set(TESTED_IN):
        test = REPOSITORY / TESTED_IN[page]
        assert re.search(rf'["/]{page}(\.md)?"', test.read_text(encoding="utf-8")), f"{test} does not read {page}"


def test_what_is_not_run_stands_on_a_page() -> None:
    here = [page for page in RUN_HERE if (PAGES / f"{page}.md").is_file()]
    assert set(NOT_RUN) <= {command for page in here for command in commands(page)}


def test_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_text("".join(f"case_{i:03d}\n" for i in range(219)))
    made, split, published = to_run("splits")
    medmap(made)
    assert medmap(split) == shown("splits", "40 of 40")
    assert medmap(published) == shown("splits", "219 cases")


def test_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bundle: Callable[[Path], Path]) -> None:
    monkeypatch.chdir(tmp_path)
    write_cohort("COHORT", cases=2, shape=(32, 32, 32), seed=5)
    bundle = small_bundle(tmp_path / "bundles")
    shutil.copytree(bundle, "B")
    (bundle / "runs").mkdir()
    for command in to_run("evaluate"):
        if "runs/baseline" in command:
            for name in ("baseline", "passion"):
                shutil.copytree("evaluation", f"runs/{name}")
        medmap(command)
        if "--shard 0" in command:  # "and 1, 2, 3"
            for shard in (1, 2, 3):
                medmap(command.replace("--shard 0", f"--shard {shard}"))
    assert Path("OUT/metrics.csv").read_bytes() == Path("evaluation/metrics.csv").read_bytes()
    assert Path("evaluation/features.npz").is_file()
    assert Path("report.html").is_file()
    assert Path("comparison.html").is_file()


def test_train_on_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = copy_bundle(tmp_path / "bundles")
    monkeypatch.chdir(bundle)
    write_cohort("DATA", cases=4, shape=(24, 24, 24), seed=5)
    (command,) = to_run("train-on-gpus")
    assert "2 cases written, 0 found" in medmap(command.replace("--workers 2", "--workers 0"))
    assert len(list(Path("store").glob("*.json"))) == 2


def test_reproduce_a_paper(tmp_path: Path, run_command: Run) -> None:
    for number in range(1, 370):  # the plan reads names only
        name = f"BraTS20_Training_{number:03d}"
        folder = tmp_path / "BraTS2020" / name
        folder.mkdir(parents=True)
        for ending in ("flair", "t1ce", "t1", "t2", "seg"):
            (folder / f"{name}_{ending}.nii.gz").touch()
    (tmp_path / "pipelines").symlink_to(REPOSITORY / "pipelines")
    before = sorted(tmp_path.iterdir())
    for command in to_run("reproduce-a-paper"):
        assert "--dry-run" in command
        done = run_command(*shlex.split(command), cwd=tmp_path)
        assert re.search(r"^in all: [\d,]+ training steps", done.stdout, re.MULTILINE), command
        assert ("about" in done.stdout.split("in all:")[1].splitlines()[0]) == ("--seconds" in command)
    assert sorted(tmp_path.iterdir()) == before


def test_compare_methods(run_command: Run) -> None:
    for command in to_run("compare-methods"):
        assert "--dry-run" in command
        assert run_command(*shlex.split(command), cwd=REPOSITORY).stdout.count(" seed ") > 2, command
