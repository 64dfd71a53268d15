"""Header blocks of SPDY/3: packed with zlib and a dictionary that the protocol fixes.

Guarantees: ``DICTIONARY`` is the one of section 2.6.10.1 of the protocol (compared
with the copy inside a kubectl binary); a block longer than the limit, cut off,
or with a name that is empty, repeated or not lower-case raises ``ProtocolError``
before more than the limit is unpacked.

Does not: survive a block that was left out. One context serves a direction of a
connection for its whole life, so every block must pass through here, in order.
"""

import struct
import zlib
from collections.abc import Mapping
from typing import Final

_UINT32: Final = struct.Struct(">I")

_NAMES: Final = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language"
    " accept-ranges age allow authorization cache-control connection content-base"
    " content-encoding content-language content-length content-location content-md5"
    " content-range content-type date etag expect expires from host if-match"
    " if-modified-since if-none-match if-range if-unmodified-since last-modified location"
    " max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after"
    " server te trailer transfer-encoding upgrade user-agent vary via warning"
    " www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie"
    " keep-alive origin"
)
_TAIL: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00"
    " Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _pascal(text: str) -> bytes:
    data = text.encode("latin-1")
    return _UINT32.pack(len(data)) + data


# The protocol's constant (section 2.6.10.1): words with their length, then plain text.
DICTIONARY: Final = b"".join(_pascal(n.replace("_", " ")) for n in _NAMES.split()) + _TAIL.encode()


class ProtocolError(Exception):
    """The peer broke the protocol; the connection must be closed."""


class HeaderCodec:
    """Packs and unpacks the header blocks of one end of a connection."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def pack(self, headers: Mapping[str, str]) -> bytes:
        """Pack headers into a block that the peer can read at once."""
        pairs = (_pascal(name.lower()) + _pascal(value) for name, value in headers.items())
        block = _UINT32.pack(len(headers)) + b"".join(pairs)
        return self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def unpack(self, packed: bytes) -> dict[str, str]:
        """Read a block.

        Raises:
            ProtocolError: The block is damaged or too long.
        """
        try:
            block = self._inflate.decompress(packed, self._max_size + 1)
        except zlib.error as error:
            raise ProtocolError(f"a header block cannot be unpacked: {error}") from error
        if len(block) > self._max_size or self._inflate.unconsumed_tail:
            raise ProtocolError(f"a header block longer than {self._max_size} bytes")
        return _parse(block)


def _parse(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    if len(block) < _UINT32.size:
        raise ProtocolError("a header block without a count")
    (count,) = _UINT32.unpack_from(block)
    at = _UINT32.size

    def text() -> str:
        nonlocal at
        start = at + _UINT32.size
        length = int.from_bytes(block[at:start], "big")
        at = start + length
        if at > len(block):
            raise ProtocolError("a header block ends within a header")
        return block[start:at].decode("latin-1")

    for _ in range(count):
        name = text()
        if not name or name != name.lower() or name in headers:
            raise ProtocolError(f"the header name {name!r} is empty, not lower-case or twice")
        headers[name] = text()
    if at != len(block):
        raise ProtocolError("a header block is longer than its headers")
    return headers
