"""What an evaluation scores: which subsets, which regions, and what an empty one counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import get_edition
from medmap_monai.metrics.bootstrap import Bootstrap
from medmap_monai.metrics.edge_cases import EdgeCases
from medmap_monai.metrics.lesion_wise import LESION_UNITS
from medmap_monai.metrics.region_scores import METRIC_UNITS
from medmap_monai.metrics.regions import Region, make_regions
from medmap_monai.modalities import Modalities
from medmap_monai.utils.grouped import grouped

#: published post-processing: a predicted ET of fewer voxels is erased; always reported beside ET
PUBLISHED_MINIMUM_VOXELS = {"ET": 500}


class Scoring:
    """What is scored, and how the scores are summed up.

    Args:
        edition: the edition whose regions are scored; None: the one that the studies name.
        regions: region name -> classes, instead of the edition's.
        minimum_voxels: region name -> fewest voxels of a prediction that counts; adds ``<name>pp`` beside the region.
            None: ET 500, where there is an ET.
        subsets: subset names to score; None: all. Of a study only subsets of what it has are scored.
        edge_cases: an :class:`EdgeCases` or its arguments, for example ``{"hd95_empty": "1.0"}``.
        lesion_wise: add lesion-wise scores (needs the extra ``lesions``).
        smallest_finding: ml; connected findings of predictions that are smaller are background before anything is
            scored, as ``medmap predict`` removes them.
        bootstrap: of the confidence intervals; a :class:`Bootstrap` or its arguments.

    Raises:
        ValueError: for an unknown edition or edge-case policy, or a negative ``smallest_finding``.
    """

    def __init__(
        self,
        edition: str | Edition | None = None,
        regions: Mapping[str, Sequence[int]] | None = None,
        minimum_voxels: Mapping[str, int] | None = None,
        subsets: Sequence[str] | None = None,
        edge_cases: EdgeCases | Mapping[str, Any] | None = None,
        lesion_wise: bool = False,
        smallest_finding: float = 0.0,
        bootstrap: Bootstrap | Mapping[str, Any] | None = None,
    ) -> None:
        self.edition = None if edition is None else get_edition(edition)
        self.regions = regions
        self.minimum_voxels = minimum_voxels
        self.subsets = subsets
        self.edge_cases = grouped(EdgeCases, edge_cases)
        self.lesion_wise = lesion_wise
        if smallest_finding < 0:
            raise ValueError(f"smallest_finding must not be negative (ml), got {smallest_finding}")
        self.smallest_finding = float(smallest_finding)
        self.bootstrap = grouped(Bootstrap, bootstrap)

    def subset_masks(self, modalities: Modalities) -> list[tuple[bool, ...]]:
        """Masks of the subsets that are scored, in the order of the tables.

        Raises:
            ValueError: a name of ``subsets`` is no subset of ``modalities``.
        """
        masks = modalities.subset_masks()
        wanted = masks if self.subsets is None else {modalities.mask(name) for name in self.subsets}
        return [mask for mask in masks if mask in wanted]

    def regions_of(self, edition: Edition | None) -> list[Region]:
        """The regions that are scored, where the studies are of ``edition``."""
        classes = self.regions if self.regions is not None else edition.regions if edition else {}
        minimum = self.minimum_voxels
        if minimum is None:
            minimum = {name: count for name, count in PUBLISHED_MINIMUM_VOXELS.items() if name in classes}
        return make_regions(classes, minimum)

    @property
    def units(self) -> dict[str, str]:
        """Metric -> unit."""
        return METRIC_UNITS | (LESION_UNITS if self.lesion_wise else {})
