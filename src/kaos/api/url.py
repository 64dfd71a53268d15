"""What every URL in a spec must be, so that nothing which reads it later can fail at it.

Guarantees: a URL that passes has a host and a port that can be connected to. The patterns of the
CRDs cannot say that: `http://vllm:port/v1` passed them, and the controller failed at it without a
word in the status.

Does not: look at the scheme, which each field's own pattern names.
"""

import re
from ipaddress import IPv6Address
from urllib.parse import SplitResult, urlsplit

LABEL = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?")
LONGEST_HOST = 253


def checked_url(url: str | None) -> str | None:
    """The URL as it is; also the validator of a field that may be absent.

    Raises:
        ValueError: nothing can be reached by it; the message says why, without the URL, in which
            a password may stand.
    """
    if url is None:
        return None
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("not a URL: it has a space, a backslash or a character that is not ASCII")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {_told(url)}") from error
    if port == 0:
        raise ValueError("not a URL: its port must be a number from 1 to 65535")
    _check_host(parts)
    return url


def _told(url: str) -> str:
    if url.count("[") != url.count("]"):
        return "its brackets are not closed"
    if "[" in url:
        return "what is in its brackets is no IPv6 address"
    return "its port must be a number from 1 to 65535"


def _check_host(parts: SplitResult) -> None:
    host = parts.hostname or ""
    if not host:
        raise ValueError("not a URL: it names no host")
    if "[" in parts.netloc:
        try:
            address = IPv6Address(host)
        except ValueError as error:
            raise ValueError("not a URL: what is in its brackets is no IPv6 address") from error
        if address.scope_id:
            raise ValueError("not a URL: an address with a zone is known on one node only")
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > LONGEST_HOST or not all(LABEL.fullmatch(label) for label in labels):
        raise ValueError("not a URL: its host is no name that DNS can know")
