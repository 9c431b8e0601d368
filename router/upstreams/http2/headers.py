"""Header blocks without memory (RFC 7541): what a block says does not depend on those before it.

We write literals only, and announce a header table of size 0, so that the other side can refer to nothing it sent
before. Equal blocks therefore mean equal headers, and nearly every answer is read from a cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from hpack import Decoder, HPACKError

_CACHED = 512  # blocks each way
_PREFIX = 0x7F  # seven bits of a length; what does not fit goes into further bytes


@lru_cache(_CACHED)
def encode(headers: tuple[tuple[str, str], ...]) -> bytes:
    """A block of literals that no table keeps. Names must be lower-case, all of it latin-1."""
    return b"".join([literal(name, value) for name, value in headers])


@lru_cache(_CACHED)
def literal(name: str, value: str) -> bytes:
    """The same of one header."""
    return b"\0" + _text(name) + _text(value)


@lru_cache(_CACHED)
def decode(block: bytes) -> Mapping[str, str]:
    """The headers in a block; of equal names, the last one. Raises ValueError."""
    decoder = Decoder()
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    try:
        headers = decoder.decode(block, raw=True)
    except HPACKError as error:
        raise ValueError(f"a header block cannot be read: {error}") from None
    return MappingProxyType({bytes(name).decode("latin-1"): bytes(value).decode("latin-1") for name, value in headers})


def _text(text: str) -> bytes:
    raw = text.encode("latin-1")
    length = len(raw)
    if length < _PREFIX:
        return bytes((length,)) + raw
    rest, more = length - _PREFIX, bytearray((_PREFIX,))
    while rest > _PREFIX:
        more.append(rest & _PREFIX | 0x80)
        rest >>= 7
    more.append(rest)
    return bytes(more) + raw
