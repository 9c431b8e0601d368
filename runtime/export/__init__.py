"""PyTorch modules as model folders: `export`, and `python -m runtime.export`."""

from __future__ import annotations

from runtime.export.folder import export

__all__ = ["export"]
