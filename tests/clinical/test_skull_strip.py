"""Backends that find the brain: how they are called, what is made of their answer, and what is told without them."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medmap_monai.clinical.skull_strip import (
    SKULL_STRIPPERS,
    CommandSkullStripper,
    SkullStripError,
    SkullStripper,
    find_brain,
    with_dark_fluid,
)
from medmap_monai.clinical.volume import Volume

AFFINE = np.diag([-5.0, 5.0, 5.0, 1.0])

#: a tool as the two are called: reads the image it is given, writes a mask where the arguments say
_PROGRAM = """#!{python}
import sys
import nibabel as nib
import numpy as np
words = sys.argv[1:]
image = nib.load(words[words.index("-i") + 1])
target = words[words.index("-m") + 1] if "-m" in words else words[words.index("-o") + 1]
if "--save_bet_mask" in words:
    target = target.replace(".nii.gz", "_bet.nii.gz")
{body}
"""
_MASK = "nib.save(nib.Nifti1Image((image.get_fdata() > 50).astype(np.uint8), image.affine), target)"


class Fixed(SkullStripper):
    """Answers with the mask it was made with."""

    name = "fixed"

    def __init__(self, mask: np.ndarray) -> None:
        self.mask = mask

    def brain_mask(self, head: Volume, modality: str = "") -> np.ndarray:
        return self.mask


@pytest.fixture
def head() -> Volume:
    """A ball of 4.2 l, in it one of 1.4 l that is brighter than 50."""
    axes = np.indices((44, 44, 44)) - 21.5
    radius = np.sqrt((axes**2).sum(axis=0))
    return Volume(np.where(radius < 14, 100, np.where(radius < 20, 40, 0)).astype(np.float32), AFFINE)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program on the path."""

    def add(name: str, body: str) -> None:
        program = tmp_path / name
        program.write_text(_PROGRAM.format(python=sys.executable, body=body))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return add


@pytest.mark.parametrize(("name", "command"), [("synthstrip", "mri_synthstrip"), ("hd-bet", "hd-bet")])
def test_a_tool_is_called_as_its_manual_says(
    name: str, command: str, head: Volume, install: Callable[[str, str], None]
) -> None:
    install(command, _MASK)
    np.testing.assert_array_equal(find_brain(head, SKULL_STRIPPERS[name]), head.data > 50)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no weights')", "synthstrip failed with code 1: no weights"),
        ("pass", "synthstrip failed with code 0: it wrote no mask"),
        (
            "nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.uint8), image.affine), target)",
            r"synthstrip wrote a mask on another grid: \(9, 9, 9\)",
        ),
        (_MASK.replace("> 50", "> 0"), r"synthstrip found 4\d\d\d ml, a brain has 400 to 2200"),
    ],
)
def test_what_a_tool_does_wrong_is_told(
    body: str, message: str, head: Volume, install: Callable[[str, str], None]
) -> None:
    install("mri_synthstrip", body)
    with pytest.raises(SkullStripError, match=message):
        find_brain(head, SKULL_STRIPPERS["synthstrip"])


@pytest.mark.parametrize("name", [n for n, tool in SKULL_STRIPPERS.items() if isinstance(tool, CommandSkullStripper)])
def test_a_tool_that_is_not_there_names_the_one_that_can_be_had(
    name: str, head: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SkullStripError, match=rf"{name} is not installed.*deepbet.*extra 'skullstrip'"):
        find_brain(head, SKULL_STRIPPERS[name])


def test_a_mask_that_is_no_brain_by_its_size_is_refused(head: Volume) -> None:
    few = np.zeros(head.data.shape, dtype=bool)
    few[20:24, 20:24, 20:24] = True
    with pytest.raises(SkullStripError, match=r"fixed found 8 ml, a brain has 400 to 2200; is it a whole head\?"):
        find_brain(head, Fixed(few))
    with pytest.raises(SkullStripError, match="fixed found 0 ml"):
        find_brain(head, Fixed(np.zeros_like(few)))


def test_bright_fluid_becomes_dark_and_the_brain_keeps_its_place() -> None:
    """T2: fluid above cortex above white matter above bone and air; T1: white matter, cortex, fluid, air."""
    shares = {
        "air": (0.0, 0.5),
        "bone": (60.0, 0.05),
        "white": (280.0, 0.25),
        "cortex": (330.0, 0.15),
        "fluid": (700.0, 0.05),
    }
    data = np.concatenate([np.full(round(share * 8000), value) for value, share in shares.values()]).reshape(20, 20, 20)
    white, cortex, fluid, bone, air = (
        float(with_dark_fluid(data)[data == shares[name][0]][0]) for name in ("white", "cortex", "fluid", "bone", "air")
    )
    assert 1 >= white >= cortex > 0.8
    assert fluid < bone < 0.3
    assert air == 0
    assert with_dark_fluid(np.zeros((4, 4, 4), np.float32)).max() == 0


def test_deepbet_finds_no_brain_in_a_ball_of_noise(head: Volume) -> None:
    """Whatever it answers, no mask of an image without a brain passes for one."""
    pytest.importorskip("deepbet", reason="deepbet (extra 'skullstrip') is not installed")
    noise = np.random.default_rng(0).uniform(0, 100, head.data.shape).astype(np.float32)
    with pytest.raises(SkullStripError, match="deepbet found"):
        find_brain(Volume(noise, head.affine), SKULL_STRIPPERS["deepbet"])
