"""Where the server is and who we are: kubeconfigs, and what is left on disk."""

import asyncio
import base64
import json
import ssl
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kaos.runtime import ClusterConfig
from kaos.runtime.config import Credentials, Login, _expiry


def certificate(common_name: str = "test") -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(pem), private


def kubeconfig(path: Path, user: dict[str, object], cluster: dict[str, object]) -> Path:
    context = {"cluster": "c", "user": "u", "namespace": "team"}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": context}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(body))
    return path


async def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    server: dict[str, object] = {"server": "http://127.0.0.1:1234/"}
    config = await ClusterConfig.load(kubeconfig(tmp_path / "k", {"token": "secret"}, server))
    assert config.server == "http://127.0.0.1:1234"
    assert config.namespace == "team"
    assert await config.credentials.token() == "secret"
    assert "secret" not in repr(config)


async def test_a_token_file_is_read_again_when_its_token_was_refused(tmp_path: Path) -> None:
    """kr8s does not know `tokenFile`, which kubectl reads, relative to the kubeconfig."""
    user: dict[str, object] = {"token": "overruled", "tokenFile": "token"}
    (tmp_path / "token").write_text("first\n")
    config = await ClusterConfig.load(kubeconfig(tmp_path / "k", user, {"server": "http://x"}))
    first = await config.credentials.current()
    assert first.token == "first"
    assert not await config.credentials.refresh(first)
    (tmp_path / "token").write_text("second\n")
    assert await config.credentials.refresh(await config.credentials.current())
    assert await config.credentials.token() == "second"


async def test_a_token_file_that_is_being_written_is_no_token(tmp_path: Path) -> None:
    """The request would fail for what is in its header, and end whoever makes it."""
    user: dict[str, object] = {"tokenFile": "token"}
    (tmp_path / "token").write_text("first")
    config = await ClusterConfig.load(kubeconfig(tmp_path / "k", user, {"server": "http://x"}))
    (tmp_path / "token").write_text("\0\0half a token\n")
    assert not await config.credentials.refresh(await config.credentials.current())
    assert await config.credentials.token() == "first"
    with pytest.raises(ValueError, match="a control character"):
        await ClusterConfig.load(tmp_path / "k")


async def test_a_token_file_that_is_missing_is_named(tmp_path: Path) -> None:
    user: dict[str, object] = {"tokenFile": str(tmp_path / "missing")}
    path = kubeconfig(tmp_path / "k", user, {"server": "http://x"})
    with pytest.raises(ValueError, match=r"tokenFile .*missing"):
        await ClusterConfig.load(path)


@pytest.mark.parametrize("by_plugin", [False, True], ids=["kubeconfig", "plugin"])
async def test_private_keys_are_not_left_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_plugin: bool
) -> None:
    """kr8s leaves a key, a certificate and a CA in the temporary folder at each login."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    pems = [pem.decode() for pem in certificate()]
    public, private = (base64.b64encode(pem.encode()).decode() for pem in pems)
    user: dict[str, object] = {"client-certificate-data": public, "client-key-data": private}
    if by_plugin:
        told = tmp_path / "told.json"
        status = {"clientCertificateData": pems[0], "clientKeyData": pems[1]}
        told.write_text(json.dumps({"kind": "ExecCredential", "status": status}))
        version = "client.authentication.k8s.io/v1"
        user = {"exec": {"apiVersion": version, "command": "cat", "args": [str(told)]}}
    server: dict[str, object] = {"server": "https://x", "certificate-authority-data": public}
    config = await ClusterConfig.load(kubeconfig(tmp_path / "k", user, server))
    assert config.credentials.tls is not None
    assert list(scratch.iterdir()) == []


async def test_a_key_that_does_not_fit_is_not_left_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each login that failed left one more copy of it."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    pair = certificate()[0], certificate()[1]
    public, private = (base64.b64encode(pem).decode() for pem in pair)
    user: dict[str, object] = {"client-certificate-data": public, "client-key-data": private}
    path = kubeconfig(tmp_path / "k", user, {"server": "https://x"})
    with pytest.raises(ValueError, match=r"no usable cluster .*key values mismatch"):
        await ClusterConfig.load(path)
    assert list(scratch.iterdir()) == []


async def test_a_client_certificate_alone_trusts_what_the_system_trusts(tmp_path: Path) -> None:
    """Behind a public authority no server was trusted by who had a certificate and no CA."""
    public, private = (base64.b64encode(pem).decode() for pem in certificate())
    user: dict[str, object] = {"client-certificate-data": public, "client-key-data": private}
    config = await ClusterConfig.load(kubeconfig(tmp_path / "k", user, {"server": "https://x"}))
    assert config.credentials.tls is not None
    default = ssl.create_default_context().cert_store_stats()
    assert config.credentials.tls.cert_store_stats() == default


async def test_another_current_context_changes_nothing_for_who_runs_already(
    tmp_path: Path,
) -> None:
    """At the next login, its token was sent to the server of the context before."""
    path = tmp_path / "k"

    def write(current: str, server: str, token: str) -> None:
        context = {"cluster": "c", "user": "u"}
        one = {"name": "prod", "context": {"cluster": "p", "user": "p"}}
        body = {
            "current-context": current,
            "contexts": [{"name": "dev", "context": context}, one],
            "clusters": [
                {"name": "c", "cluster": {"server": server}},
                {"name": "p", "cluster": {"server": "http://prod"}},
            ],
            "users": [
                {"name": "u", "user": {"token": token}},
                {"name": "p", "user": {"token": "of-prod"}},
            ],
        }
        path.write_text(yaml.safe_dump(body))

    write("dev", "http://dev", "first")
    credentials = (await ClusterConfig.load(path)).credentials
    write("prod", "http://dev", "second")
    assert await credentials.refresh(await credentials.current())
    assert await credentials.token() == "second"
    write("dev", "http://elsewhere", "third")
    assert not await credentials.refresh(await credentials.current())
    assert await credentials.token() == "second"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("no-such-plugin", "no-such-plugin"),
        ("false", "non-zero code 1"),
        ("true", "Expecting value"),
        ("./plugin", "Did not find credentials"),
    ],
)
async def test_a_plugin_that_fails_is_told_in_one_line(
    tmp_path: Path, command: str, told: str
) -> None:
    """It was an exception nobody expects, so a program ended with a traceback."""
    (tmp_path / "plugin").write_text("#!/bin/sh\necho '{\"status\": {}}'\n")
    (tmp_path / "plugin").chmod(0o755)
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": command}
    path = kubeconfig(tmp_path / "k", {"exec": plugin}, {"server": "http://x"})
    with pytest.raises(ValueError, match=told):
        await ClusterConfig.load(path)


async def test_files_that_a_kubeconfig_names_are_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    public, private = certificate()
    (tmp_path / "cert").write_bytes(public)
    (tmp_path / "key").write_bytes(private)
    user: dict[str, object] = {
        "client-certificate": str(tmp_path / "cert"),
        "client-key": str(tmp_path / "key"),
    }
    server: dict[str, object] = {"server": "https://127.0.0.1:1"}
    await ClusterConfig.load(kubeconfig(tmp_path / "k", user, server))
    assert (tmp_path / "key").exists()


async def test_an_unknown_context_is_named(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "k", {"token": "t"}, {"server": "http://x"})
    with pytest.raises(ValueError, match="nowhere"):
        await ClusterConfig.load(path, "nowhere")


async def test_no_cluster_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"no usable cluster in .*absent and in-cluster"):
        await ClusterConfig.load()
    with pytest.raises(ValueError, match=r"no usable cluster in .*other"):
        await ClusterConfig.load(tmp_path / "other")


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The service account of a pod that we are in."""
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("pod-token\n")
    (account / "ca.crt").write_bytes(certificate()[0])
    monkeypatch.setattr("kaos.runtime.config._SERVICE_ACCOUNT", account)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return account


async def test_in_a_pod_the_service_account_speaks(account: Path) -> None:
    """kr8s says "default" for the namespace there."""
    (account / "namespace").write_text("kaos-system\n")
    config = await ClusterConfig.load()
    assert config.server == "https://10.0.0.1:443"
    assert config.namespace == "kaos-system"
    assert await config.credentials.token() == "pod-token"
    (account / "token").write_text("rotated")
    assert await config.credentials.refresh(await config.credentials.current())
    assert await config.credentials.token() == "rotated"


def test_tokens_are_renewed_a_minute_before_they_expire() -> None:
    def jwt(exp: float) -> str:
        parts: tuple[dict[str, object], ...] = ({"alg": "none"}, {"exp": exp}, {})
        return ".".join(
            base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts
        )

    later = datetime.now(UTC).timestamp() + 3600
    assert _expiry(jwt(later)) == pytest.approx(later - 60, abs=1)
    assert _expiry("") == 0
    assert _expiry("k8s-aws-v1.abc") == 0
    assert _expiry("a.b.c") == 0


def test_direct_needs_no_kr8s_and_no_file() -> None:
    config = ClusterConfig.direct("https://example.test:6443/", "t", verify=False)
    assert config.server == "https://example.test:6443"
    assert config.credentials.tls is not None
    assert ClusterConfig.direct("http://localhost:1").credentials.tls is None


class Clock:
    """A wall clock that jumps, as it does when a suspended machine wakes up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        monkeypatch.setattr("kaos.runtime.config.time.time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_credentials_of_a_plugin_are_renewed_before_the_shortest_usual_life(
    tmp_path: Path, clock: Clock
) -> None:
    """kr8s drops the expiry that a plugin tells, and an opaque token does not tell its own."""
    told = tmp_path / "told.json"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "k8s-aws-v1.first"},
    }
    told.write_text(json.dumps(credential))
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "cat",
        "args": [str(told)],
        "interactiveMode": "Never",
    }
    path = kubeconfig(tmp_path / "k", {"exec": plugin}, {"server": "http://x"})
    config = await ClusterConfig.load(path)
    told.write_text(json.dumps(credential).replace("first", "second"))
    clock.now += 590
    assert await config.credentials.token() == "k8s-aws-v1.first"
    clock.now += 20
    assert await config.credentials.token() == "k8s-aws-v1.second"


async def test_after_a_night_asleep_the_first_request_has_a_new_token(clock: Clock) -> None:
    """Expiry is told by the wall clock; the loop's clock stands still while a machine sleeps."""

    async def renew() -> Login:
        return Login("new", expires=clock.now + 3600)

    credentials = Credentials(Login("old", expires=clock.now + 3600), renew)
    assert await credentials.token() == "old"
    clock.now += 8 * 3600
    assert await credentials.token() == "new"


async def test_a_service_account_s_token_is_read_again_long_before_it_expires(
    account: Path, clock: Clock
) -> None:
    """API servers may make it last a year, and complain of who uses it for more than an hour."""
    (account / "token").write_text("first")
    credentials = (await ClusterConfig.load()).credentials
    (account / "token").write_text("second")
    assert await credentials.token() == "first"
    clock.now += 601
    assert await credentials.token() == "second"


async def test_a_login_that_hangs_holds_one_request_up_and_no_other(clock: Clock) -> None:
    """The token there was is good for a while yet; all requests waited for a plugin."""
    begun, finish = asyncio.Event(), asyncio.Event()

    async def renew() -> Login:
        begun.set()
        await finish.wait()
        return Login("new")

    credentials = Credentials(Login("old", expires=clock.now - 1), renew)
    first = asyncio.create_task(credentials.token())
    await begun.wait()
    assert await asyncio.wait_for(credentials.token(), 1) == "old"
    finish.set()
    assert await first == "new"


async def test_a_login_that_fails_ends_nothing_and_is_tried_again(clock: Clock) -> None:
    """It woke up before its network did: a plugin's failure used to end the manager."""
    tries: list[float] = []

    async def renew() -> Login:
        tries.append(clock.now)
        if len(tries) == 1:
            raise OSError("no route to the identity provider")
        return Login("new")

    old = Login("old", expires=clock.now - 1)
    credentials = Credentials(old, renew)
    assert await credentials.token() == "old"
    assert await credentials.refresh(old) is False
    assert len(tries) == 1
    clock.now += 11
    assert await credentials.token() == "new"
    assert await credentials.refresh(old) is True
    assert len(tries) == 2
