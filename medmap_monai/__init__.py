"""Segment medical images when some modalities are missing."""

from __future__ import annotations

__version__ = "0.1.0"
