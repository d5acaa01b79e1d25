"""Finished steps stay, changed ones are named, nothing runs twice or beside another."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medmap_monai.recipes.commands import CommandError
from medmap_monai.recipes.run_plan import BusyError, ChangedStepError, run_plan, state_of
from medmap_monai.recipes.step import Step, content_of

# appends to a log who ran, and copies its input; settings are read like a real step does
SCRIPT = """
import json, pathlib, sys
name, source, target, settings = sys.argv[1:5]
with open(pathlib.Path(target).parent / "calls", "a") as file: file.write(name + " ")
text = pathlib.Path(source).read_text() + json.loads(pathlib.Path(settings).read_text())["add"]
if "fail" in text: sys.exit("the reason")
if "nothing" not in text: pathlib.Path(target).write_text(text)
"""


def step(folder: Path, name: str, source: str, target: str, add: str = "x", repeatable: bool = False) -> Step:
    settings = folder / f"{name}.settings.json"
    command = ("python", str(folder / "copy.py"), name, str(folder / source), str(folder / target), str(settings))
    return Step(
        name, name, command, (folder / source,), (folder / target,), None, settings, {"add": add}, repeatable=repeatable
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "copy.py").write_text(SCRIPT)
    (folder / "data").write_text("data ")
    return folder


def roots_of(folder: Path) -> dict[str, Path]:
    return {"output": folder}


def chain(folder: Path, add: str = "x") -> list[Step]:
    return [
        step(folder, "one", "data", "a"),
        step(folder, "two", "a", "b", add),
        step(folder, "page", "b", "c", "y", repeatable=True),
    ]


def run(folder: Path, steps: list[Step]) -> list[str]:
    """Names of the steps that ran."""
    (folder / "calls").write_text("")
    run_plan(steps, folder, roots_of(folder))
    return (folder / "calls").read_text().split()


def test_finished_steps_stay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, chain(folder)) == ["one", "two", "page"]
    assert (folder / "c").read_text() == "data xxy"
    assert run(folder, chain(folder)) == []
    assert [state_of(s, roots_of(folder)) for s in chain(folder)] == ["done"] * 3
    assert "done: two" in capsys.readouterr().out
    (folder / "b").unlink()
    assert run(folder, chain(folder)) == ["two"]


def test_results_may_move_as_a_whole(folder: Path) -> None:
    run(folder, chain(folder))
    moved = folder.parent / "moved"
    shutil.move(folder, moved)
    assert run(moved, chain(moved)) == []


def test_a_changed_setting_stops_everything_and_is_named(folder: Path) -> None:
    run(folder, chain(folder))
    (folder / "a").unlink()  # there would be something to do
    with pytest.raises(
        ChangedStepError, match=r'step two was finished .*settings\.add was "x", is now "z".*delete .*b\.st'
    ):
        run(folder, chain(folder, add="z"))
    assert (folder / "calls").read_text() == ""
    assert state_of(chain(folder, "z")[1], roots_of(folder)) == "changed"


def test_a_changed_command_and_a_changed_input_are_named(folder: Path) -> None:
    run(folder, chain(folder))
    steps = chain(folder)
    steps[1] = replace(steps[1], command=(*steps[1].command, "--shape", "8"))
    with pytest.raises(ChangedStepError, match=r"command --shape was nothing, is now 8"):
        run(folder, steps)
    (folder / "a").write_text("other")
    with pytest.raises(ChangedStepError, match=r"step two .*the content of OUTPUT/a changed"):
        run(folder, chain(folder))


def test_an_option_with_another_value_is_named(folder: Path) -> None:
    steps = [replace(chain(folder)[0], command=(*chain(folder)[0].command, "--cases", "8"))]
    run(folder, steps)
    steps = [replace(steps[0], command=(*steps[0].command[:-1], "9"))]
    with pytest.raises(ChangedStepError, match="command --cases was 8, is now 9"):
        run(folder, steps)


def test_a_repeatable_step_runs_again(folder: Path) -> None:
    run(folder, chain(folder))
    steps = chain(folder)
    steps[2] = step(folder, "page", "b", "c", "other", repeatable=True)
    assert state_of(steps[2], roots_of(folder)) == "changed"
    assert run(folder, steps) == ["page"]
    assert (folder / "c").read_text() == "data xxother"


def test_a_failed_step_tells_its_reason_and_is_tried_again(folder: Path) -> None:
    (folder / "data").write_text("fail")
    with pytest.raises(CommandError, match=r"(?s)ended with 1; the end of .*one\.log:.*\| the reason"):
        run(folder, chain(folder))
    (folder / "data").write_text("data ")  # repaired
    assert run(folder, chain(folder)) == ["one", "two", "page"]


def test_a_step_with_something_to_continue_is_not_continued_with_other_settings(folder: Path) -> None:
    (folder / "data").write_text("fail")
    own = [replace(chain(folder)[0], folder=folder / "own")]
    with pytest.raises(CommandError):
        run(folder, own)
    assert state_of(own[0], roots_of(folder)) == "started"
    changed = [replace(own[0], settings={"add": "other"})]
    with pytest.raises(ChangedStepError, match=r"step one was started with something else: settings\.add"):
        run(folder, changed)
    (folder / "data").write_text("data ")
    shutil.rmtree(folder / "own")
    assert run(folder, changed) == ["one"]


def test_a_step_that_leaves_nothing_is_an_error(folder: Path) -> None:
    with pytest.raises(ChangedStepError, match=r"step two ended well but left no .*/b"):
        run(folder, chain(folder, add="nothing"))


def test_a_step_whose_folder_is_deleted_is_done_anew_and_what_came_of_it_is_named(folder: Path) -> None:
    def steps(add: str) -> list[Step]:
        one, two, _ = chain(folder, add)
        own = replace(two, folder=folder / "own", outputs=(folder / "own" / "b",))
        own = replace(own, command=(*own.command[:4], str(folder / "own" / "b"), own.command[5]))
        return [one, own, step(folder, "three", "own/b", "d")]

    def start(add: str) -> None:
        (folder / "own").mkdir(exist_ok=True)
        (folder / "own" / "calls").write_text("")
        run(folder, steps(add))

    start("x")
    shutil.rmtree(folder / "own")
    with pytest.raises(ChangedStepError, match=r"step three was finished .*the content of OUTPUT/own/b changed"):
        start("z")
    assert (folder / "own" / "b").read_text() == "data xz"
    (folder / "d.step.json").unlink()
    start("z")
    assert (folder / "d").read_text() == "data xzx"


def test_a_folder_in_use_is_left_alone(folder: Path) -> None:
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="is in use"):
            run(folder, chain(folder))
    finally:
        os.close(handle)
    assert run(folder, chain(folder)) == ["one", "two", "page"]


def test_commands_inherit_the_lock(folder: Path) -> None:
    """A command that outlives its recipe keeps the folder, so that no second one writes beside it."""
    script = (
        "import fcntl, os, sys\n"
        "handle = os.open(sys.argv[1], os.O_RDWR)\n"
        "inherited = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n != str(handle)"
        " and os.path.exists(f'/proc/self/fd/{n}')]\n"
        "open(sys.argv[2], 'w').write(str(inherited.count(os.path.realpath(sys.argv[1]))))\n"
    )
    target = folder / "held"
    command = (sys.executable, "-c", script, str(folder / ".lock"), str(target))
    run(folder, [Step("hold", "hold", command, outputs=(target,))])
    assert target.read_text() == "1"


def test_a_torn_record_is_named(folder: Path) -> None:
    run(folder, chain(folder))
    (folder / "b.step.json").write_text("{")
    with pytest.raises(ChangedStepError, match="is not the record of a step"):
        run(folder, chain(folder))


def test_a_record_tells_what_a_step_was_made_with(folder: Path) -> None:
    run(folder, chain(folder))
    content = json.loads((folder / "b.step.json").read_text())
    assert content["state"] == "finished"
    assert content["made_with"]["settings.add"] == '"x"'
    assert content["made_with"]["command"].startswith("python OUTPUT/copy.py two ")
    assert content["made_with"]["the content of OUTPUT/a"] == content_of(folder / "a")


def test_content_of_a_folder_is_names_and_sizes_of_its_images(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    image = tmp_path / "case" / "flair.nii.gz"
    image.write_bytes(b"123")
    first = content_of(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert content_of(tmp_path) == first
    image.write_bytes(b"1234")
    assert content_of(tmp_path) != first
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        content_of(tmp_path / "nowhere")
