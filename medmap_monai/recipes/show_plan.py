"""Print a plan: every step with its command and cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medmap_monai.recipes.choices import Choices
from medmap_monai.recipes.cost import Cost, duration
from medmap_monai.recipes.recipe import Recipe
from medmap_monai.recipes.run_plan import state_of
from medmap_monai.recipes.step import Step


def plan_text(
    recipe: Recipe,
    choices: Choices,
    steps: Sequence[Step],
    roots: Mapping[str, Path],
    per_step: float | None = None,
    per_window: float | None = None,
) -> str:
    """The plan for people: what is assumed, the steps, the cost in all; with time where that of a unit is given."""

    def priced(cost: Cost) -> str:
        seconds = cost.seconds(per_step, per_window)
        return f"{cost}; about {duration(seconds)}" if seconds else str(cost)

    def lines() -> Iterator[str]:
        yield f"# {recipe.title}, {choices.edition}"
        yield f"# {recipe.origin}"
        if choices.phantom:
            yield "# PHANTOM: synthetic studies and small networks; the results do not speak of patients or the paper."
        yield f"# train/val/test cases: {'/'.join(map(str, choices.folds))}; results in {choices.output}"
        states = [state_of(step, roots) for step in steps]
        for number, (step, state) in enumerate(zip(steps, states, strict=True), start=1):
            yield ""
            yield f"[{number}/{len(steps)}] {step.name} ({state}): {step.title}"
            if step.settings_file is not None:
                yield f"    {step.settings_file} = {json.dumps(step.settings)}"
            yield f"    $ {step.shown}"
            yield f"    cost: {priced(step.cost)}"
        yield ""
        total = sum((step.cost for step in steps), Cost())
        left = sum((step.cost for step, state in zip(steps, states, strict=True) if state != "done"), Cost())
        yield f"in all: {priced(total)}"
        if left != total:
            yield f"left:   {priced(left)}"
        shape = " x ".join(map(str, choices.shape))
        yield f"counted from: epochs, batch size and window of the configurations, studies of {shape}"
        if choices.processes > 1:
            yield f"{choices.processes} processes do a training step each at the same time"
        if per_step is None and per_window is None:
            yield "no time is given: add --seconds-per-step and --seconds-per-window"
        else:
            yield "time: one device works all the time, nothing else included"

    return "\n".join(lines()) + "\n"
