"""Print a plan: every step with its command and cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from medmap_monai.recipes.choices import Choices
from medmap_monai.recipes.cost import Cost, Speed, duration
from medmap_monai.recipes.markers import Markers
from medmap_monai.recipes.recipe import Recipe
from medmap_monai.recipes.run_plan import state_of
from medmap_monai.recipes.step import Step


def plan_text(
    recipe: Recipe, choices: Choices, steps: Sequence[Step], markers: Markers, speed: Speed | None = None
) -> str:
    """The plan for people: what is assumed, the steps, the cost in all."""
    return "\n".join(_lines(recipe, choices, steps, markers, speed)) + "\n"


def _lines(
    recipe: Recipe, choices: Choices, steps: Sequence[Step], markers: Markers, speed: Speed | None
) -> Iterator[str]:
    yield f"# {recipe.title}, {choices.edition}"
    yield f"# {recipe.origin}"
    if choices.phantom:
        yield "# PHANTOM: synthetic studies and small networks; the results say nothing about patients or the paper."
    yield f"# train/val/test cases: {'/'.join(map(str, choices.folds))}; results in {choices.output}"
    total = Cost()
    open_cost = Cost()
    for number, step in enumerate(steps, start=1):
        state = state_of(step, markers)
        total += step.cost
        if state != "done":
            open_cost += step.cost
        yield ""
        yield f"[{number}/{len(steps)}] {step.name} ({state}): {step.title}"
        if step.settings_file is not None:
            yield f"    {step.settings_file} = {json.dumps(step.settings)}"
        yield f"    $ {step.shown}"
        yield f"    cost: {_with_time(step.cost, speed)}"
    yield ""
    yield f"in all: {_with_time(total, speed)}"
    if open_cost != total:
        yield f"left:   {_with_time(open_cost, speed)}"
    yield from _basis(choices, speed)


def _with_time(cost: Cost, speed: Speed | None) -> str:
    seconds = None if speed is None else speed.seconds(cost)
    return str(cost) if not seconds else f"{cost}; about {duration(seconds)}"


def _basis(choices: Choices, speed: Speed | None) -> Iterator[str]:

    yield f"counted from: epochs, batch size and window of the configurations, studies of {_times(choices.shape)}"
    if choices.processes > 1:
        yield f"{choices.processes} processes do a training step each at the same time"
    if speed is None:
        yield "no time is given: add --measure, or --seconds-per-step and --seconds-per-window"
        return
    yield f"time per unit: {speed.source}; one device works all the time, nothing else included"
    for name in dict.fromkeys([*speed.per_step, *speed.per_window]):
        step, window = speed.per_step.get(name), speed.per_window.get(name)
        told = [f"{step:.3g} s per step"] if step is not None else []
        told += [f"{window:.3g} s per window"] if window is not None else []
        yield f"  {name}: {', '.join(told)}"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
