"""The certificate is accepted by those who were given it, under the strictest rules, and only."""

import contextlib
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from kaos.local import certificate


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    made = tmp_path / "server.crt", tmp_path / "server.key"
    certificate.create(*made)
    return made


def shake_hands(server: tuple[Path, Path], client: ssl.SSLContext, name: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*server)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        # The client may not like what it sees.
        with theirs, contextlib.suppress(OSError):
            context.wrap_socket(theirs, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours, client.wrap_socket(ours, server_hostname=name):
            pass
    finally:
        thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_it_is_accepted_on_loopback_by_the_strict(files: tuple[Path, Path], name: str) -> None:
    client = ssl.create_default_context(cafile=str(files[0]))
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    shake_hands(files, client, name)


def test_nobody_else_accepts_it_nor_is_it_good_for_another_name(files: tuple[Path, Path]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(files, ssl.create_default_context(), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(files, ssl.create_default_context(cafile=str(files[0])), "example.org")


def test_the_key_is_private(files: tuple[Path, Path]) -> None:
    assert stat.S_IMODE(files[1].stat().st_mode) == 0o600
