"""Brain masks by whichever tool is there: one interface, several backends."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nibabel as nib
import numpy as np

from medmap_monai.clinical.extras import need
from medmap_monai.clinical.volume import Volume, read_nifti, write_nifti
from medmap_monai.transforms.background import LARGEST_BRAIN_ML

#: ml; smaller or larger is no brain: infants have 400 ml, the largest adult brains with tumour 1.9 l
BRAIN_ML = (400.0, LARGEST_BRAIN_ML)

#: sequences on which fluid is brighter than the brain
BRIGHT_FLUID = ("t2",)
_AIR = 0.08  # of the brightest: what is darker is air


class SkullStripError(ValueError):
    """No usable brain mask; the message says what came out and what to do."""


class SkullStripper(ABC):
    """Finds the brain in one image of a whole head."""

    name: str

    @abstractmethod
    def brain_mask(self, head: Volume, modality: str = "") -> np.ndarray:
        """bool (X, Y, Z): the brain.

        Args:
            head: the image.
            modality: what sequence it is, for tools that were made for one; empty: unknown.

        Raises:
            SkullStripError: the tool failed.
            ExtraNeededError: its package is not installed.
        """

    def version(self) -> str:
        """Version of the tool, for provenance."""
        return "unknown"


class DeepBet(SkullStripper):
    """deepbet (Fisch et al. 2024): networks for T1 images whose weights are part of the package; needs no network.

    FLAIR and T1ce images are given to it as they are: their masks are as good on the real study of the tests. Where
    fluid is bright (T2) it takes fluid and dura for brain; these images are first given the contrast that it knows.
    """

    name = "deepbet"

    def brain_mask(self, head: Volume, modality: str = "") -> np.ndarray:
        deepbet = need("deepbet.bet", "skullstrip", "skull-stripping with deepbet")
        data = with_dark_fluid(head.data) if modality in BRIGHT_FLUID else head.data
        image = nib.Nifti1Image(data.astype(np.float32), head.affine)
        try:
            # on the processor: the same mask everywhere, in seconds
            _, mask, _ = deepbet.BrainExtraction(no_gpu=True).run(image)
        except (AssertionError, ValueError, RuntimeError) as error:  # no foreground, or nothing connected
            raise SkullStripError(f"deepbet found no brain ({error})") from error
        return np.asarray(mask.dataobj) > 0

    def version(self) -> str:
        try:
            return version("deepbet")
        except PackageNotFoundError:
            return "not installed"


class CommandSkullStripper(SkullStripper):
    """A tool that is installed as a command: HD-BET or SynthStrip.

    Args:
        name: what users call it.
        command: the program.
        arguments: with ``{input}`` and ``{mask}`` where the files go.
        written: name of the mask that the tool writes, where it is not ``{mask}`` itself.
    """

    def __init__(self, name: str, command: str, arguments: tuple[str, ...], written: str = "mask.nii.gz") -> None:
        self.name = name
        self.command = command
        self.arguments = arguments
        self.written = written

    def brain_mask(self, head: Volume, modality: str = "") -> np.ndarray:
        program = shutil.which(self.command)
        if program is None:
            raise SkullStripError(
                f"{self.name} is not installed (no command {self.command!r}); --skull-strip deepbet needs only the "
                "extra 'skullstrip' (pip install 'medmap-monai[skullstrip]')"
            )
        with tempfile.TemporaryDirectory(prefix="medmap-") as folder:
            given, mask = Path(folder) / "head.nii.gz", Path(folder) / "mask.nii.gz"
            write_nifti(head, given)
            call = [program, *(part.format(input=given, mask=mask) for part in self.arguments)]
            done = subprocess.run(call, capture_output=True, text=True, check=False)
            if done.returncode != 0 or not (Path(folder) / self.written).is_file():
                told = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it wrote no mask"]
                raise SkullStripError(f"{self.name} failed with code {done.returncode}: {told[0]}")
            found = read_nifti(Path(folder) / self.written)
        if not found.same_grid(head, tolerance=1e-2):
            raise SkullStripError(f"{self.name} wrote a mask on another grid: {found.data.shape}")
        return found.data > 0


#: backends by the name that users choose; SynthStrip and HD-BET fetch their weights themselves when they are installed
SKULL_STRIPPERS: dict[str, SkullStripper] = {
    "deepbet": DeepBet(),
    "synthstrip": CommandSkullStripper("synthstrip", "mri_synthstrip", ("-i", "{input}", "-m", "{mask}")),
    "hd-bet": CommandSkullStripper(
        "hd-bet",
        "hd-bet",
        ("-i", "{input}", "-o", "{mask}", "-device", "cpu", "--disable_tta", "--save_bet_mask", "--no_bet_image"),
        written="mask_bet.nii.gz",
    ),
}


def with_dark_fluid(data: np.ndarray) -> np.ndarray:
    """An image with bright fluid, with the order of a T1 image: white matter bright, cortex darker, fluid and air dark.

    Up to the median of the head values rise as they are, above it they fall, to 0 at twice the median.

    Args:
        data: (X, Y, Z), air about 0.

    Returns:
        the same shape, 0 to 1.
    """
    head = data[data > _AIR * np.quantile(data, 0.999)]
    typical = float(np.median(head)) if head.size else 1.0
    level = data / typical
    return np.where(level < 1, level, np.clip(2 - level, 0, None)).astype(np.float32)


def find_brain(head: Volume, stripper: SkullStripper, modality: str = "") -> np.ndarray:
    """The brain mask of ``head``, checked.

    Args:
        head: the image of a whole head.
        stripper: the tool.
        modality: what sequence it is; empty: unknown.

    Raises:
        SkullStripError: the tool failed, or what it found is no brain by its size.
    """
    mask = stripper.brain_mask(head, modality)
    millilitres = float(mask.sum()) * head.voxel_ml
    if not BRAIN_ML[0] <= millilitres <= BRAIN_ML[1]:
        raise SkullStripError(
            f"{stripper.name} found {millilitres:.0f} ml, a brain has {BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f}; "
            "is it a whole head? (--skull-strip names other tools, 'none' for images without skull)"
        )
    return mask
