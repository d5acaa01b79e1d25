"""The steps of a recipe, in the order in which they run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medmap_monai.data.editions import get_edition
from medmap_monai.recipes.choices import Choices
from medmap_monai.recipes.cost import Cost
from medmap_monai.recipes.prepare_cohort import MANIFEST_FILE
from medmap_monai.recipes.published_split import TEST_LIST, published_file
from medmap_monai.recipes.recipe import Recipe, Training
from medmap_monai.recipes.step import Step
from medmap_monai.recipes.training_settings import (
    evaluation_overrides,
    training_settings,
    training_steps,
    windows_of_a_case,
)

PHANTOM_SEED = 0


@dataclass(frozen=True)
class _Split:
    """A split file: ``name`` of it and of the folders of its runs."""

    name: str
    combination: str | None
    partition: int


def make_plan(recipe: Recipe, choices: Choices) -> list[Step]:
    """All steps: cohort, splits, and per split trainings, evaluations and reports.

    Raises:
        FileNotFoundError: a bundle or a published split file does not exist.
    """
    return list(_Plan(recipe, choices).steps())


class _Plan:
    def __init__(self, recipe: Recipe, choices: Choices) -> None:
        self.recipe = recipe
        self.choices = choices
        self.manifest = choices.output / MANIFEST_FILE

    def steps(self) -> Iterator[Step]:
        if self.choices.phantom:
            yield self._phantom()
        yield self._prepare()
        splits = list(self._splits())
        for split in splits:
            yield self._split(split)
        for split in splits:
            runs = [(t, seed) for seed in self.choices.seeds for t in self.choices.trainings]
            for training, seed in runs:
                yield self._train(split, training, seed)
                for protocol in self.choices.protocols:
                    yield self._evaluate(split, training, seed, protocol)
            for protocol in self.choices.protocols:
                yield self._report(split, runs, protocol)

    def _splits(self) -> Iterator[_Split]:
        several = len(self.choices.task.partitions) > 1 and not self.choices.published
        for combination in self.choices.combinations or (None,):
            for partition in self.choices.partitions[: 1 if self.choices.published else None]:
                name = "complete" if combination is None else f"mr{combination}"
                yield _Split(f"{name}_fold{partition}" if several else name, combination, partition)

    @property
    def _cohort(self) -> Path:
        return self.choices.output / "phantom" if self.choices.phantom else self.choices.data or Path("DATA")

    def _phantom(self) -> Step:
        size = self.choices.phantom
        assert size is not None
        command = ["medmap", "phantom", "--edition", self.choices.edition, "--cases", str(size.cases)]
        command += ["--shape", *map(str, size.shape), "--seed", str(PHANTOM_SEED), str(self._cohort)]
        written = self._cohort / "dataset.json"  # the cohort appears at once or not at all
        return Step("phantom", "phantom cohort (synthetic)", tuple(command), outputs=(written,))

    def _prepare(self) -> Step:
        command = ["python", "-m", "medmap_monai.recipes.prepare_cohort", str(self._cohort)]
        command += ["--output", str(self.choices.output), "--edition", self.choices.edition]
        command += ["--resample"] if self.choices.resample else []
        command += ["--leave-out-broken"] if self.choices.leave_out_broken else []
        command += ["--workers", str(self.choices.workers)] if self.choices.workers > 1 else []
        cost = Cost(cases=sum(self.choices.folds))
        title = "read every study, and write a manifest of the sound ones"
        return Step("prepare", title, tuple(command), (self._cohort,), (self.manifest,), cost=cost)

    def _split_file(self, split: _Split) -> Path:
        return self.choices.output / "splits" / f"{split.name}.csv"

    def _split(self, split: _Split) -> Step:
        choices, output = self.choices, self._split_file(split)
        inputs = [self.manifest]
        if choices.published:
            training = published_file(choices.published, choices.task.edition, str(split.combination))
            test = choices.published / TEST_LIST
            inputs += [training, test]
            command = ["python", "-m", "medmap_monai.recipes.published_split", str(self.manifest)]
            command += ["--training", str(training), "--test", str(test), "--output", str(output)]
            title = f"published split {split.name}"
        else:
            train, val, test_cases = choices.folds
            command = ["medmap", "split", "--cases", str(self.manifest), "--edition", choices.edition]
            command += ["--val", str(val), "--test", str(test_cases), "--seed", str(split.partition)]
            if split.combination is not None:
                command += ["--combination", split.combination]
                few = train < 2 ** len(get_edition(choices.edition).modalities) - 1
                command += ["--allocation", "independent"] if few else []
            command += ["--output", str(output)]
            title = f"split {split.name}"
        return Step(f"split/{split.name}", title, tuple(command), tuple(inputs), (output,))

    def _run(self, split: _Split, training: Training, seed: int) -> Path:
        return self.choices.output / "runs" / split.name / training.name / f"seed{seed}"

    def _configs(self, training: Training, *names: str) -> list[Path]:
        folder = self.choices.bundles / training.bundle / "configs"
        return [folder / f"{name}.json" for name in (*names, *self.choices.overlays)]

    def _train(self, split: _Split, training: Training, seed: int) -> Step:
        choices, run = self.choices, self._run(split, training, seed)
        several = choices.processes > 1
        configs = self._configs(training, "train", *(["multi_gpu_train"] if several else []))
        settings_file = run / "settings.json"
        command = ["python"]
        if several:
            command = ["torchrun", "--standalone", f"--nproc_per_node={choices.processes}"]
        command += ["-m", "monai.bundle", "run", "training"]
        command += ["--config_file", json.dumps([str(path) for path in [*configs, settings_file]])]
        command += ["--bundle_root", str(choices.bundles / training.bundle)]
        return Step(
            f"train/{split.name}/{training.name}/seed{seed}",
            f"train {training.title}, {split.name}, seed {seed}",
            tuple(command),
            inputs=(self.manifest, self._split_file(split), *configs),
            outputs=(run / "models" / "model.pt",),
            folder=run,
            settings_file=settings_file,
            settings=training_settings(choices, training, self.manifest, self._split_file(split), run, seed),
            cost=Cost(training_steps=training_steps(choices, training)),
        )

    def _evaluate(self, split: _Split, training: Training, seed: int, protocol: str) -> Step:
        choices, run = self.choices, self._run(split, training, seed)
        weights, output = run / "models" / "model.pt", run / protocol
        command = ["medmap", "evaluate", str(self.manifest), "--bundle", str(choices.bundles / training.bundle)]
        command += [word for overlay in choices.overlays for word in ("--overlay", overlay)]
        command += ["--set", f"checkpoint={weights}", "--split", str(self._split_file(split)), "--fold", "test"]
        command += ["--edition", choices.edition, "--protocol", protocol]
        command += ["--hd95-empty", "1.0"] if protocol == "legacy" else []  # as the published scripts score
        command += ["--resample"] if choices.resample else []
        command += ["--device", choices.device] if choices.device else []
        for key, value in evaluation_overrides(choices, training).items():
            command += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        command += ["--output", str(output)]
        cases = choices.folds[2]
        return Step(
            f"evaluate/{split.name}/{training.name}/seed{seed}/{protocol}",
            f"evaluate {training.title}, {split.name}, seed {seed}: every subset, {protocol} protocol",
            tuple(command),
            inputs=(self.manifest, self._split_file(split), weights, *self._configs(training, "evaluate")),
            outputs=(output / "metrics.csv", output / "summary.json"),
            folder=output,
            cost=Cost(windows=cases * windows_of_a_case(choices, training), cases=cases),
        )

    def _report(self, split: _Split, runs: list[tuple[Training, int]], protocol: str) -> Step:
        page = self.choices.output / "reports" / f"{split.name}_{protocol}.html"
        folders = [self._run(split, training, seed) for training, seed in runs]
        several = len(self.choices.seeds) > 1
        command = ["medmap", "report", *(str(folder / protocol) for folder in folders)]
        for training, seed in runs:
            command += ["--name", f"{training.title}, seed {seed}" if several else training.title]
        command += [word for folder in folders for word in ("--logs", str(folder))]
        data = f"{self.choices.edition} phantom" if self.choices.phantom else self.choices.edition
        trained = f"trained {self.choices.train_protocol}, evaluated {protocol}"
        command += ["--title", f"{self.recipe.title}: {data}, {split.name}, {trained}", "--output", str(page)]
        tables = page.with_name(f"{page.stem}_files")
        inputs = [folder / protocol / name for folder in folders for name in ("metrics.csv", "summary.json")]
        return Step(
            f"report/{split.name}_{protocol}",
            f"report {split.name}, {protocol} protocol: page, and the paper's table as CSV and LaTeX",
            tuple(command),
            inputs=tuple(inputs),
            outputs=(page, tables / "table_dice.csv", tables / "table_dice.tex"),
            repeatable=True,
        )
