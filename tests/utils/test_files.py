from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from medmap_monai.utils.files import atomic_path, remove_stale, temporary_prefix, write_text
from medmap_monai.utils.output import require_writable


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "volume.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"data")
        assert not target.exists()
    assert target.read_bytes() == b"data"
    assert [p.name for p in target.parent.iterdir()] == ["volume.nii.gz"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    write_text(target, "old\n")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [target]


def test_line_ends_are_written_as_given(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "x\r\ny\n")
    assert (tmp_path / "a.csv").read_bytes() == b"x\r\ny\n"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match=r"output folder .*out is not writable"):
        require_writable(tmp_path / "out")


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    code = (
        "import os, sys; from medmap_monai.utils.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n    temporary.write_text('half')\n    os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.pt")], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp-")
    folder = tmp_path / left.name.replace("model.pt", "bundle")  # of the same process
    (folder / "deep").mkdir(parents=True)
    elsewhere = tmp_path / ".tmp-00000000-1-x"  # of another machine, not old
    elsewhere.write_text("")
    with atomic_path(tmp_path / "mine.csv") as mine:
        assert sorted(remove_stale(tmp_path)) == sorted([left, folder])
        assert mine.exists()
        os.utime(elsewhere, (0, 0))
        assert remove_stale(tmp_path) == [elsewhere]
    assert [p.name for p in tmp_path.iterdir()] == ["mine.csv"]
    (tmp_path / f"{temporary_prefix()}x").touch()
    require_writable(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_longest_name_that_a_folder_takes(tmp_path: Path) -> None:
    name = "b" * 248 + ".nii.gz"
    with atomic_path(tmp_path / name) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"data")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_names_in_another_encoding_are_text(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", os.fsdecode(b"M\xfcller"))
    assert (tmp_path / "a.csv").read_bytes() == rb"M\udcfcller"
