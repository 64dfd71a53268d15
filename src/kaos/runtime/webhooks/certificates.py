"""The certificate of a webhook server: made, kept in a Secret, replaced before it expires.

Guarantees: replicas agree, because each step is one conditional write of the Secret and whoever
loses reads again. A new certificate is in the bundle that the API server trusts for `OVERLAP`
seconds before anybody serves it, and the old one stays in it afterwards, so no call fails on the
way. Each is self-signed and trusted by name: there is no CA key that could be stolen.
A Secret whose certificates cannot be served (no pair, for no host) is as good as an empty one: all
is made anew.
Does not: I/O; `next_state` is a pure function of the Secret and the time.
"""

import base64
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kaos.runtime.codec import Object

LIFE = 90 * 86400.0
OVERLAP = 600.0
_CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, both PEM."""

    certificate: str
    key: str

    @property
    def parsed(self) -> x509.Certificate:
        """The certificate; ValueError when it is none."""
        return x509.load_pem_x509_certificate(self.certificate.encode())


@dataclass(frozen=True, slots=True)
class State:
    """What the Secret holds.

    Attributes:
        current: What is served.
        next: What will be served; trusted already.
        old: The certificate before; trusted still.
    """

    current: Pair
    next: Pair | None = None
    old: str = ""

    @property
    def bundle(self) -> str:
        """All certificates the API server is to trust."""
        upcoming = self.next.certificate if self.next is not None else ""
        return self.current.certificate + upcoming + self.old

    def data(self) -> dict[str, str]:
        """The Secret's data."""
        named = {"tls.crt": self.current.certificate, "tls.key": self.current.key, "old": self.old}
        if self.next is not None:
            named |= {"next.crt": self.next.certificate, "next.key": self.next.key}
        return {name: base64.b64encode(text.encode()).decode() for name, text in named.items()}


def state_of(secret: Object) -> State | None:
    """What a Secret holds; None when that is no use."""
    data: dict[str, Any] = secret.get("data") or {}
    try:
        named = {name: base64.b64decode(text).decode() for name, text in data.items()}
        current = _pair(named["tls.crt"], named["tls.key"])
        upcoming = _pair(named["next.crt"], named["next.key"]) if "next.crt" in named else None
        if old := named.get("old", ""):
            x509.load_pem_x509_certificates(old.encode())
    except (KeyError, TypeError, ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return None
    return State(current, upcoming, old)


def _pair(certificate: str, key: str) -> Pair:
    pair = Pair(certificate, key)
    private = serialization.load_pem_private_key(key.encode(), password=None)
    if pair.parsed.public_key() != private.public_key():
        raise ValueError("the key is not the certificate's")
    names_of(pair.parsed)
    return pair


def next_state(state: State | None, names: Sequence[str], now: datetime) -> State:
    """What the Secret should hold now; the same state when it is as it should be.

    Args:
        state: What it holds, if anything.
        names: The host names the API server calls.
        now: The time.
    """
    if state is None:
        return State(make(names, now))
    current = state.current.parsed
    valid = current.not_valid_before_utc <= now < current.not_valid_after_utc  # a clock was ahead
    if not valid or names_of(current) != [str(_name(host).value) for host in names]:
        return State(make(names, now))  # nobody can call us now: no time for an overlap
    if state.next is not None:
        ripe = state.next.parsed.not_valid_before_utc + _CLOCKS_DIFFER
        if now >= ripe + timedelta(seconds=OVERLAP):
            return State(state.next, None, state.current.certificate)
        return state
    life = current.not_valid_after_utc - current.not_valid_before_utc
    if now >= current.not_valid_after_utc - life / 3:
        return replace(state, next=make(names, now))
    return state


def make(names: Sequence[str], now: datetime) -> Pair:
    """A new self-signed certificate for these host names."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # OpenSSL finds a trusted certificate by its subject, so two of us must differ in it.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"webhook {serial:x}")])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + timedelta(seconds=LIFE))
        .add_extension(x509.SubjectAlternativeName([_name(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(made.public_bytes(pem).decode(), private.decode())


def names_of(certificate: x509.Certificate) -> list[str]:
    """The host names a certificate is for."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in found.value]


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def load(context: ssl.SSLContext, pair: Pair) -> None:
    """Serve this from now on: handshakes that begin later use it, connections go on."""
    both = (pair.certificate + pair.key).encode()
    if hasattr(os, "memfd_create"):  # OpenSSL reads files only; this one is never on a disk
        with os.fdopen(os.memfd_create("webhook"), "wb") as file:
            file.write(both)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pair.pem")
        path.write_bytes(both)
        context.load_cert_chain(path)


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)
