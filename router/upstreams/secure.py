"""Headers whose values stand in files, because they are secret. These are read when this is called."""

from __future__ import annotations

from pathlib import Path

from protos.errors import FailedPrecondition
from router.config.arm import File


def header_values(headers: dict[str, str | File]) -> list[tuple[str, str]]:
    """Headers with the values that stand in files. Raises FailedPrecondition."""
    return [(name, _value(name, value)) for name, value in headers.items()]


def _value(name: str, value: str | File) -> str:
    if isinstance(value, File):
        try:
            value = Path(value.file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise FailedPrecondition(f"headers: {name} cannot be read: {error}") from None
    if not (value.isascii() and value.isprintable()):
        raise FailedPrecondition(f"headers: the value of {name} is not plain text that a header can carry")
    return value
