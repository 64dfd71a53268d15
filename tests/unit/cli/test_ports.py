"""Ports that are taken, and by whom."""

import os
import socket
import sys

import pytest

from kaos.cli.errors import CliError
from kaos.cli.ports import free_port, holder, require_free


def test_a_free_port_is_free() -> None:
    require_free(free_port())


def test_a_taken_port_is_told_with_its_holder_and_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(CliError) as caught:
            require_free(port)
    message = str(caught.value)
    assert message.startswith(f"port {port} is in use")
    assert "--port" in message
    if sys.platform == "linux":
        assert f"process {os.getpid()}" in message


def test_nobody_holds_a_free_port() -> None:
    assert holder(free_port()) == ""


def test_a_port_that_somebody_has_on_the_other_localhost_is_taken() -> None:
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with taken, pytest.raises(CliError, match="is in use"):
        require_free(taken.getsockname()[1])
