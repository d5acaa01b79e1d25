"""Segment medical images when some modalities are missing."""

from lazy_loader import attach_stub

__version__ = "0.1.0"

# what `import medmap_monai as mm` offers stands in __init__.pyi; nothing of it is imported before it is used
__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
