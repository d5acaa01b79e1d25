"""The experiments of DMAF-Net: imbalanced missing rates on the brain and on the heart.

    python pipelines/reproduce_dmafnet.py --data MICCAI_BraTS2020_TrainingData --dry-run

docs/how-to/reproduce-a-paper.md explains the options. No published number is claimed to come out: the code of DMAF-Net
was never released, and this project's version is a reconstruction.
"""

from __future__ import annotations

import sys
from pathlib import Path

from medmap_monai.recipes.main import run_recipe
from medmap_monai.recipes.recipe import PhantomSize, Recipe, Task, Training

IMPERFECT = {"mode": "idt"}
# the paper builds on these; against which rivals it was compared is not known to us
RIVALS = (
    Training("rfnet", "RFNet", "brats_rfnet_dropout", IMPERFECT),
    Training("mmformer", "mmFormer", "brats_mmformer_dropout", IMPERFECT),
    Training("rfnet_passion", "RFNet + PASSION", "brats_passion_rfnet", IMPERFECT),
    Training("mmformer_passion", "mmFormer + PASSION", "brats_passion_mmformer", IMPERFECT),
)

DMAFNET = Recipe(
    name="dmafnet",
    title="DMAF-Net",
    origin="A reconstruction from figures and abstract; optimiser and schedule are those of PASSION's code, folds are "
    "ours unless --published is given.",
    tasks=(
        Task(
            "brats2020",
            (*RIVALS, Training("dmafnet", "DMAF-Net", "brats_dmafnet", IMPERFECT)),
            folds=(219, 50, 100),
            shape=(240, 240, 155),
            phantom=PhantomSize(cases=36, shape=(32, 32, 32), folds=(30, 2, 4)),
            combinations=("2468",),  # the only one that its published file tree names
        ),
        Task(
            "myops2020",
            (
                Training("unet_passion", "ModalityUNet + PASSION", "myops_passion_unet", IMPERFECT),
                Training("dmafnet", "DMAF-Net", "myops_dmafnet", IMPERFECT),
            ),
            folds=(20, 0, 5),
            shape=(480, 480, 4),
            phantom=PhantomSize(cases=16, shape=(64, 64, 8), folds=(12, 0, 4)),
            combinations=("357", "375", "537", "573", "735", "753"),
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(run_recipe(DMAFNET, Path(__file__).resolve().parents[1] / "bundles"))
