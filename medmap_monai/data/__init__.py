"""Studies on disk, editions of data sets, splits, and synthetic cohorts."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
