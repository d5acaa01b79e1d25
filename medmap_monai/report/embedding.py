"""t-SNE of encoder features, coloured by modality, and the modality gap beside it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from medmap_monai.engines.encoder_features import EncoderFeatures, LevelGap, gap_per_level
from medmap_monai.modalities import Modalities
from medmap_monai.report.display import modality_label
from medmap_monai.report.figure_style import figure_style, modality_colours

#: points per modality; t-SNE grows quickly with their number and shows no more with ten times as many
MAX_POINTS = 150
_ITERATIONS = 500


def embedding_figure(features: EncoderFeatures, title: str, max_points: int = MAX_POINTS, seed: int = 0) -> Figure:
    """One panel per level (the finest and the coarsest), features of unit length, one colour per modality."""
    levels = list(features.levels)
    chosen = [levels[0], levels[-1]] if len(levels) > 1 else levels
    gaps = {gap.level: gap for gap in gap_per_level(features)}
    modalities = Modalities(features.modalities)
    colours = modality_colours(modalities)
    with figure_style():
        figure, axes = plt.subplots(
            1, len(chosen), figsize=(4.6 * len(chosen), 4.1), squeeze=False, layout="constrained"
        )
        for panel, level in zip(axes[0], chosen, strict=True):
            values = _sample(features.levels[level], max_points, seed)
            places = _embed(values, seed)
            for m, modality in enumerate(modalities):
                panel.scatter(*places[m].T, s=9, color=colours[modality], alpha=0.6, linewidths=0, rasterized=True)
                panel.scatter([], [], s=40, color=colours[modality], label=modality_label(modality))
            panel.set_xticks([])
            panel.set_yticks([])
            gap = gaps[level].gap
            panel.set_title(f"{title}: {_level_label(level)}")
            panel.set_xlabel(
                f"linear CKA {gap.cka:.2f}, centroid distance {gap.centroid_distance:.2f}, n = {gaps[level].positions}"
            )
        axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def level_gaps(features: EncoderFeatures) -> list[LevelGap]:
    """Rows of the table beside the picture."""
    return gap_per_level(features)


def _level_label(level: str) -> str:
    """``level0`` is the finest."""
    return f"encoder {level.replace('level', 'level ')}" + (" (finest)" if level == "level0" else "")


def _sample(values: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The same ``count`` positions of every modality (M, n, C)."""
    if values.shape[1] <= count:
        return values
    chosen = np.random.default_rng(seed).choice(values.shape[1], count, replace=False)
    return values[:, np.sort(chosen)]


def _embed(values: np.ndarray, seed: int) -> np.ndarray:
    """(M, n, C) -> (M, n, 2)."""
    count, points, channels = values.shape
    flat = values.reshape(count * points, channels).astype(np.float64)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    perplexity = max(2.0, min(30.0, (len(flat) - 1) / 4))
    places = TSNE(2, perplexity=perplexity, max_iter=_ITERATIONS, init="pca", random_state=seed).fit_transform(flat)
    return places.reshape(count, points, 2)
