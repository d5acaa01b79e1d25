"""The plan of a recipe: which steps, with which commands and settings, at which cost."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from medmap_monai.cli.main import app
from medmap_monai.inferers.windows import window_grid
from medmap_monai.recipes.choices import Choices
from medmap_monai.recipes.cost import Cost, duration
from medmap_monai.recipes.main import run_recipe
from medmap_monai.recipes.plan import make_plan
from medmap_monai.recipes.recipe import Recipe
from medmap_monai.recipes.step import Step
from medmap_monai.recipes.training_settings import (
    evaluation_overrides,
    training_steps,
    windows_of_a_case,
)
from tests.pipelines.recipes import NAMES, REPOSITORY, load_recipe

BUNDLES = REPOSITORY / "bundles"
CASES = [(name, edition) for name in NAMES for edition in load_recipe(name).editions]


def choices_of(recipe: Recipe, edition: str, output: Path = Path("/out"), **changes: Any) -> Choices:
    task = recipe.task(edition)
    values: dict[str, Any] = {
        "output": output,
        "bundles": BUNDLES,
        "task": task,
        "trainings": task.trainings,
        "seeds": recipe.seeds,
        "combinations": task.combinations,
        "partitions": task.partitions,
        "edition": edition,
        "folds": task.folds,
        "shape": task.shape,
    }
    return Choices(**{**values, **changes})


def plan_of(name: str, edition: str, **changes: Any) -> list[Step]:
    recipe = load_recipe(name)
    return make_plan(recipe, choices_of(recipe, edition, **changes))


@pytest.mark.parametrize(("name", "edition"), CASES)
def test_every_training_is_evaluated_in_both_protocols_and_reported(name: str, edition: str) -> None:
    recipe = load_recipe(name)
    task = recipe.task(edition)
    steps = plan_of(name, edition)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    splits = max(1, len(task.combinations)) * len(task.partitions)
    kinds = {kind: sum(n.split("/")[0] == kind for n in names) for kind in ("split", "train", "evaluate", "report")}
    trainings = splits * len(task.trainings) * len(recipe.seeds)
    assert kinds == {"split": splits, "train": trainings, "evaluate": 2 * trainings, "report": 2 * splits}
    made: set[Path] = set()
    for step in steps:  # whatever a step needs was made by one before it
        for path in step.inputs:
            assert path in made or not path.is_relative_to("/out"), (step.name, path)
        made |= set(step.outputs)


@pytest.mark.parametrize(("name", "edition"), CASES)
def test_settings_are_keys_of_the_bundles(name: str, edition: str) -> None:
    for step in plan_of(name, edition):
        if not step.settings:
            continue
        bundle = Path(step.command[-1])
        known = json.loads((bundle / "configs" / "train.json").read_text())
        for key in step.settings:  # MONAI accepts misspelt ones in silence
            value: Any = known
            for part in key.split("#"):
                assert part in value, f"{bundle.name}: {key}"
                value = value[part]


@pytest.mark.parametrize(("name", "edition"), CASES)
def test_commands_and_their_options_exist(name: str, edition: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for step in plan_of(name, edition):
        if step.command[0] == "medmap":
            options = {o for p in commands[step.command[1]].params for o in [*p.opts, *p.secondary_opts]}
            assert {word for word in step.command if word.startswith("--")} <= options


def test_the_published_protocol_of_passion() -> None:
    steps = {step.name: step for step in plan_of("passion", "brats2020")}
    settings = steps["train/mr2468/rfnet_passion/seed1037"].settings
    assert settings["seed"] == 1037
    assert settings["protocol"] == "legacy"
    assert settings["mode"] == "idt"
    assert settings["missing_rates"] is None
    assert settings["train#trainer#amp"] is False
    assert settings["train#trainer#max_grad_norm"] is None
    config = json.loads((BUNDLES / "brats_passion_rfnet" / "configs" / "train.json").read_text())
    assert [config[key] for key in ("epochs", "batch_size", "learning_rate")] == [300, 1, 2e-4]
    legacy = steps["evaluate/mr2468/rfnet_passion/seed1037/legacy"].shown
    assert "--protocol legacy --hd95-empty 1.0" in legacy
    assert "--hd95-empty" not in steps["evaluate/mr2468/rfnet_passion/seed1037/clinical"].shown
    assert "--combination 2468" in steps["split/mr2468"].shown
    assert "--val 50 --test 100" in steps["split/mr2468"].shown


def test_medmap_trains_on_complete_data_with_every_anchor() -> None:
    steps = {step.name: step for step in plan_of("medmap", "brats2018")}
    assert {name for name in steps if name.startswith("split/")} == {f"split/complete_fold{i}" for i in (1, 2, 3)}
    assert "--combination" not in steps["split/complete_fold1"].shown
    settings = steps["train/complete_fold2/kd_fixed/seed1037"].settings
    assert (settings["anchor"], settings["mode"]) == ("fixed", "pdt")
    # the network of the shared latent space has the anchor at evaluation too, a distilled student has none
    assert "anchor=fixed" in steps["evaluate/complete_fold2/rfnet_fixed/seed1037/legacy"].command
    assert "anchor=fixed" not in steps["evaluate/complete_fold2/kd_fixed/seed1037/legacy"].command


def test_several_processes_train_with_torchrun() -> None:
    recipe = load_recipe("passion")
    step = next(s for s in plan_of("passion", "brats2020", processes=4) if s.name.startswith("train/"))
    assert step.settings["validate#dataset#data"] == []  # nothing is validated, by any process
    assert step.command[:3] == ("torchrun", "--standalone", "--nproc_per_node=4")
    files = json.loads(step.command[step.command.index("--config_file") + 1])
    assert [Path(file).name for file in files] == ["train.json", "multi_gpu_train.json", "settings.json"]
    choices = choices_of(recipe, "brats2020", processes=4)
    assert training_steps(choices, recipe.task("brats2020").trainings[0]) == 300 * 55  # ceil(219 / 4)


@pytest.mark.parametrize(
    ("name", "edition", "training", "expected"),
    [
        ("passion", "brats2020", "rfnet_passion", 300 * 219),
        ("passion", "myops2020", "unet_passion", 300 * 20 * 4),  # slices
        ("medmap", "brats2020", "kd_none", 2 * 300 * 110),  # teacher and student, batches of two
        ("dmafnet", "myops2020", "dmafnet", 300 * 10),  # batches of eight slices
    ],
)
def test_training_steps(name: str, edition: str, training: str, expected: int) -> None:
    recipe = load_recipe(name)
    (chosen,) = (t for t in recipe.task(edition).trainings if t.name == training)
    assert training_steps(choices_of(recipe, edition), chosen) == expected


@pytest.mark.parametrize("shape", [(240, 240, 155), (80, 80, 80), (81, 120, 121), (60, 200, 79)])
def test_windows_are_those_of_the_sliding_window(shape: tuple[int, int, int]) -> None:
    recipe = load_recipe("passion")
    training = recipe.task("brats2020").trainings[0]
    padded = [max(80, size) for size in shape]
    count = windows_of_a_case(choices_of(recipe, "brats2020", shape=shape), training)
    assert count == len(window_grid(padded, (80, 80, 80), 0.5))


def test_evaluation_knows_what_its_network_depends_on() -> None:
    recipe = load_recipe("medmap")
    training = next(t for t in recipe.task("brats2020").trainings if t.name == "rfnet_normal")
    given = {"roi_size": [64, 64, 64], "learning_rate": 0.1, "network_def#network#base_width": 4, "seed": 5}
    found = evaluation_overrides(choices_of(recipe, "brats2020", overrides=given), training)
    assert found == {
        "anchor": "normal",
        "aligned_levels": [0],
        "training_source": "full",
        "roi_size": [64, 64, 64],
        "network_def#network#base_width": 4,
    }


def test_cost_adds_up_and_becomes_time() -> None:
    total = Cost(10, 4, 2) + Cost(6, 0, 1)
    assert total == Cost(16, 4, 3)
    assert str(total) == "16 training steps, at most 4 windows with all subsets, 3 studies read"
    assert total.seconds(2.0, 0.5) == 34.0
    assert total.seconds(2.0, None) is None  # no guess for what is not known
    assert Cost(training_steps=3).seconds(2.0, None) == 6.0
    assert [duration(s) for s in (5, 90, 7200, 200000)] == ["5.0 s", "1.5 min", "2.0 h", "2.3 days"]


@pytest.mark.parametrize("name", NAMES)
def test_dry_run_prints_runnable_commands_and_writes_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert run_recipe(load_recipe(name), BUNDLES, ["--dry-run", "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert not output.exists()
    commands = [shlex.split(line.split("$ ", 1)[1]) for line in text.splitlines() if line.startswith("    $ ")]
    recipe = load_recipe(name)
    assert commands == [list(step.command) for step in _plan_with(recipe, output)]
    assert re.search(r"in all: [\d,]+ training steps", text)
    assert "no time is given" in text


def _plan_with(recipe: Recipe, output: Path) -> list[Step]:
    return make_plan(recipe, choices_of(recipe, recipe.editions[0], output, data=Path("DATA")))


def test_dry_run_with_given_speeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--dry-run", "--output", str(tmp_path), "--only", "dmafnet", "--seconds-per-step", "0.5"]
    run_recipe(load_recipe("dmafnet"), BUNDLES, arguments)
    text = capsys.readouterr().out
    assert "65,700 training steps; about 9.1 h" in text
    assert not re.search(r"in all: .*about", text)  # the time of evaluation is not known
    run_recipe(load_recipe("dmafnet"), BUNDLES, [*arguments, "--seconds-per-window", "1"])
    assert re.search(r"in all: .*; about 13.3 h", capsys.readouterr().out)  # 32850 s + 2 * 7500 s


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "swin"], "unknown trainings swin; there are rfnet, "),
        (["--phantom", "--data", "x"], "leave --data out"),
        (["--phantom", "--phantom-cases", "9"], "--phantom-cases needs --folds"),
        (["--phantom", "--folds", "1/2/3"], "36 cases, but the folds 1/2/3 are 6"),
        (["--folds", "many"], "such as 219/50/100, got 'many'"),
        (["--device", "cpu", "--nproc-per-node", "2"], "--device or --nproc-per-node"),
        (["--combinations", "24"], "must be 4 digits"),
        (["--published", "nowhere"], "Brats2020_imb_split_mr2468.csv does not exist"),
        (["--bundles", "nowhere"], "--bundles names the folder"),
        ([], "--data FOLDER is needed"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_recipe(load_recipe("passion"), BUNDLES, [*arguments, "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_number_of_cases_must_fit(phantom_cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_recipe(load_recipe("dmafnet"), BUNDLES, ["--data", str(phantom_cohort), "--dry-run"])
    assert "holds 8 cases, but the folds 219/50/100 are 369" in capsys.readouterr().err
    arguments = ["--data", str(phantom_cohort), "--dry-run", "--folds", "5/1/2", "--only", "dmafnet"]
    assert run_recipe(load_recipe("dmafnet"), BUNDLES, arguments) == 0
    text = capsys.readouterr().out
    assert "1,500 training steps" in text  # 300 epochs of 5
    assert "studies of 32 x 32 x 32" in text
    with pytest.raises(SystemExit):
        run_recipe(load_recipe("dmafnet"), BUNDLES, ["--data", str(phantom_cohort), "--edition", "brats2021"])
    assert "no experiment on brats2021; it has brats2020, myops2020" in capsys.readouterr().err
