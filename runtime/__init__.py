"""The model server: MLServer's folders in, the V2 protocol out.

A stock MLServer finds our formats here too, by the names that settings files give. It imports and reloads this module,
with or without a user's `runtime.py` in its place, so that nothing may be made here: what it asks for is fetched.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    from runtime.formats import FORMATS

    if f"{__name__}.{name}" not in FORMATS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from runtime.mlserver import FormatModel

    return FormatModel
