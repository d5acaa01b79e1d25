"""Commands run as a user would run them, and end with whoever waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medmap_monai.recipes.commands import CommandError, run_command

DRIVER = """
import signal, sys
from pathlib import Path
from medmap_monai.recipes.commands import run_command
from medmap_monai.recipes.main import _leave
signal.signal(signal.SIGTERM, _leave)
wait = "import os, signal, sys; print(os.getpid(), file=open(sys.argv[1], 'w'), flush=True); signal.pause()"
run_command("wait", [sys.executable, "-c", wait, sys.argv[1]], log=Path(sys.argv[1] + ".log"))
"""


def test_a_terminated_recipe_takes_its_command_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(file)], stdout=subprocess.DEVNULL)
    pause = threading.Event()
    while not (file.is_file() and file.read_text().strip()):
        assert driver.poll() is None
        pause.wait(0.01)
    driver.terminate()
    assert driver.wait() == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_output_goes_to_a_log_and_the_end_of_it_into_the_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "import sys; print(sys.argv[1]); sys.exit(sys.argv[1] == 'bad')"
    run_command("good one", ["python", "-c", script, "good"], log=tmp_path / "logs" / "x.log")
    with pytest.raises(CommandError, match=r"(?s)ended with 1; the end of .*x\.log:\n  \| bad$"):
        run_command("bad one", ["python", "-c", script, "bad"], log=tmp_path / "logs" / "x.log")
    lines = (tmp_path / "logs" / "x.log").read_text().splitlines()
    assert [line[:4] for line in lines] == ["$ py", "good", "$ py", "bad"]
    run_command("shown", ["python", "-c", script, "seen"], cwd=tmp_path)
    printed = capfd.readouterr().out
    assert "== good one\n$ python -c" in printed
    assert "\nseen\n" in printed


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no-such-program could not be started"):
        run_command("x", ["no-such-program"], log=tmp_path / "x.log")
