"""The picture of docs/how-to/synthetic-studies.md: twelve synthetic studies, and slices of a real one below them.

python pipelines/draw_synthetic_studies.py --anatomy FOLDER --real FOLDER -o docs/images/synthetic_studies.png
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from medmap_monai.synthesis.anatomy import label_map_files
from medmap_monai.transforms.synthesize_study import SynthesizeStudy
from medmap_monai.utils.class_colours import class_colours

TITLES = {"flair": "FLAIR", "t1ce": "T1ce", "t1": "T1", "t2": "T2"}
STUDIES, SHAPE, SPACING, FIRST_SEED = 12, (80, 96, 80), 2.0, 300
CLASSES = ("background", "NCR", "ED", "ET")
COLUMNS = len(TITLES) + 1


def draw_row(axes: list[Axes], images: Mapping[str, np.ndarray], label: np.ndarray, level: int) -> None:
    """One axial slice of every sequence, and the label; shared window around the brain."""
    shown = np.any([image[:, :, level] != 0 for image in images.values()], axis=0)
    window = tuple(slice(max(int(i.min()) - 2, 0), int(i.max()) + 3) for i in np.nonzero(shown))
    for axis, image in zip(axes, images.values(), strict=False):
        top = float(np.percentile(image[image > 0], 99.7))
        axis.imshow(image[:, :, level][window].T, cmap="gray", origin="lower", vmin=0, vmax=top)
    colours = ListedColormap(class_colours(CLASSES))
    axes[len(images)].imshow(label[:, :, level][window].T, origin="lower", vmin=0, vmax=3, cmap=colours)


def largest_slice(label: np.ndarray) -> int:
    """Axial level that shows the most tumour; the middle of the volume where there is none."""
    area = (label > 0).sum(axis=(0, 1))
    return int(area.argmax()) if area.any() else label.shape[2] // 2


def real_study(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images and label of a study folder in BraTS layout at every second voxel, in the order of ``TITLES``."""

    def read(pattern: str) -> np.ndarray:
        (path,) = folder.glob(pattern)
        return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)[::2, ::2, ::2]

    label = read("*_reference_fusion.nii.gz").astype(int)
    return {name: read(f"*_{name}.nii.gz") for name in TITLES}, np.where(label == 4, 3, label)


def main() -> None:
    """Draw and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anatomy", required=True)
    parser.add_argument("--real", type=Path, help="folder of a study with *_reference_fusion.nii.gz")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    files = label_map_files(given.anatomy)
    make = SynthesizeStudy(tuple(TITLES), SHAPE, SPACING)
    rows = STUDIES // 2
    figure, axes = plt.subplots(rows + bool(given.real), 2 * COLUMNS, figsize=(12.5, 10.5), facecolor="black")
    for number in range(STUDIES):
        study = make.set_random_state(seed=FIRST_SEED + number)(files[number % len(files)])
        images = dict(zip(TITLES, np.asarray(study["image"]), strict=True))
        label = np.asarray(study["label"][0])
        start = number % 2 * COLUMNS
        draw_row(list(axes[number // 2, start : start + COLUMNS]), images, label, largest_slice(label))
    if given.real:
        images, label = real_study(given.real)
        middle = largest_slice(label)
        for start, level in ((0, middle), (COLUMNS, middle - 5)):
            draw_row(list(axes[rows, start : start + COLUMNS]), images, label, level)
            axes[rows, start].set_title("real:", color="white", fontsize=9, loc="left")
    for column, title in enumerate([*TITLES.values(), "label"] * 2):
        axes[0, column].set_title(title, color="white", fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.965, 0.03, 0.03)
    figure.savefig(given.output, dpi=72)


if __name__ == "__main__":
    main()
