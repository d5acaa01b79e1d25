"""A MONAI transform that makes a synthetic study from a brain's label map, each time another one."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import RandomizableTransform

from medmap_monai.modalities import Modalities
from medmap_monai.synthesis.anatomy import Anatomy, load_anatomy
from medmap_monai.synthesis.mni import mni_anatomy
from medmap_monai.synthesis.priors import load_priors
from medmap_monai.synthesis.records import BUILT_IN_ANATOMY
from medmap_monai.synthesis.study import synthesize_study


class SynthesizeStudy(RandomizableTransform):
    """Label map of a brain -> a study with a tumour: images of every modality and the label.

    All randomness comes from ``self.R``; on a CPU the same state gives the same bits.

    Args:
        modalities: names in channel order; the priors must know each (``flair``, ``t1ce``, ``t1``, ``t2``).
        shape: voxels of the window.
        spacing: voxel size in mm.
        priors: see :func:`~medmap_monai.synthesis.priors.load_priors`.
        device: where to compute; tensors stay there.

    Raises:
        ValueError: a modality that the priors cannot paint.

    Example:
        >>> make = SynthesizeStudy(("flair", "t2"), shape=(80, 96, 80), spacing=2.0)
        >>> make.set_random_state(seed=0)("mni152")["image"].shape  # doctest: +SKIP
        torch.Size([2, 80, 96, 80])
    """

    def __init__(
        self,
        modalities: Sequence[str],
        shape: Sequence[int],
        spacing: float,
        priors: str | os.PathLike[str] | Mapping[str, Any] = "default",
        device: torch.device | str = "cpu",
    ) -> None:
        RandomizableTransform.__init__(self, 1.0)  # random always: a data set must not cache what it makes
        self.modalities = Modalities(tuple(modalities))
        self.shape = tuple(int(n) for n in shape)
        self.spacing = float(spacing)
        self.priors = load_priors(priors)
        self.device = torch.device(device)
        unknown = [m for m in self.modalities if m not in self.priors["tissue"]]
        if unknown:
            raise ValueError(f"the priors have no appearance for {unknown}; they know {sorted(self.priors['tissue'])}")

    def __call__(self, anatomy: str | os.PathLike[str] | Anatomy) -> dict[str, Any]:
        """Make a study of ``anatomy``: a label map file, ``mni152`` or an :class:`Anatomy` at this spacing.

        Returns:
            ``image`` float32 (M, X, Y, Z), 0 outside the brain, ``label`` uint8 (1, X, Y, Z), ``present_mask`` and
            ``modality_mask`` bool (M,), and ``kind`` of the tumour.
        """
        if not isinstance(anatomy, Anatomy):
            built_in = str(anatomy) == BUILT_IN_ANATOMY
            anatomy = mni_anatomy(self.spacing) if built_in else load_anatomy(Path(anatomy), self.spacing)
        study = synthesize_study(
            anatomy, self.modalities.names, self.shape, self.spacing, self.priors, self.R, self.device
        )
        everything = torch.ones(len(self.modalities), dtype=torch.bool)
        return {
            "image": study.image,
            "label": study.label,
            "present_mask": everything,
            "modality_mask": everything.clone(),
            "kind": study.kind,
        }


class SynthesizeStudyd(RandomizableTransform):
    """Dictionary version of :class:`SynthesizeStudy`: replaces ``anatomy`` by what was made; other entries stay.

    Args:
        modalities: names in channel order.
        anatomy_key: entry that names the label map.
        kwargs: see :class:`SynthesizeStudy`.
    """

    def __init__(self, modalities: Sequence[str], anatomy_key: Hashable = "anatomy", **kwargs: Any) -> None:
        RandomizableTransform.__init__(self, 1.0)
        self.maker = SynthesizeStudy(modalities, **kwargs)
        self.anatomy_key = anatomy_key

    def set_random_state(self, seed: int | None = None, state: Any = None) -> SynthesizeStudyd:
        super().set_random_state(seed, state)
        self.maker.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        anatomy = item.pop(self.anatomy_key)
        item.setdefault("case_id", Path(str(anatomy)).name.split(".")[0])
        item.update(self.maker(anatomy))
        return item


SynthesizeStudyD = SynthesizeStudyDict = SynthesizeStudyd
