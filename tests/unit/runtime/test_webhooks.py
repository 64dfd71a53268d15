"""Admission webhooks: certificates and their replacement, the server."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypercorn.config import Config

from kaos.runtime import CONFIG_MAP, SECRET, Manager, Object
from kaos.runtime.client import Client
from kaos.runtime.metrics import Metrics
from kaos.runtime.webhooks import Admission, Denied, Endpoint, Webhooks
from kaos.runtime.webhooks.certificates import (
    LIFE,
    OVERLAP,
    Pair,
    State,
    make,
    names_of,
    next_state,
    state_of,
)
from kaos.runtime.webhooks.server import application
from tests.unit.runtime.fake import FakeServer, status
from tests.unit.runtime.support import THING, manager, running, things
from tests.unit.runtime.test_webhook_reviews import question

SECRETS = "/api/v1/secrets"
REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
ENDPOINT = Endpoint(url="https://localhost:9443", namespace="default", port=0)


def test_a_certificate_is_made_announced_served_and_replaced_in_time() -> None:
    names = ["hooks.default.svc", "10.0.0.1"]
    first = next_state(None, names, NOW)
    assert names_of(first.current.parsed) == names
    assert next_state(first, names, NOW + timedelta(days=30)) == first

    late = NOW + timedelta(seconds=LIFE * 2 / 3 + 3600)
    announced = next_state(first, names, late)
    assert announced.current == first.current  # served still, while the next one becomes known
    assert announced.next is not None
    assert announced.next.certificate in announced.bundle
    assert next_state(announced, names, late + timedelta(seconds=OVERLAP - 1)) == announced

    replaced = next_state(announced, names, late + timedelta(seconds=OVERLAP))
    assert replaced.current == announced.next
    assert first.current.certificate in replaced.bundle  # a replica may serve it for a moment


@pytest.mark.parametrize("names", [["other.default.svc"], ["hooks.default.svc"]])
def test_an_expired_or_foreign_certificate_is_made_anew_at_once(names: list[str]) -> None:
    first = next_state(None, ["hooks.default.svc"], NOW)
    later = NOW + timedelta(seconds=LIFE + 1 if names == ["hooks.default.svc"] else 0)
    assert next_state(first, names, later).current != first.current


def nameless() -> Pair:
    """A certificate without host names."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks")])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=90))
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = key.private_bytes(pem, pkcs8, serialization.NoEncryption())
    return Pair(made.public_bytes(pem).decode(), private.decode())


def encrypted(pair: Pair) -> Pair:
    """The same with a password, which nobody can tell us."""
    key = serialization.load_pem_private_key(pair.key.encode(), None)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    hidden = key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret"))
    return Pair(pair.certificate, hidden.decode())


ONE, TWO = make(["localhost"], NOW), make(["localhost"], NOW)


@pytest.mark.parametrize(
    "unfit",
    [
        State(Pair(ONE.certificate, TWO.key)),
        State(nameless()),
        State(encrypted(ONE)),
        State(Pair(ONE.certificate, "no key")),
        State(ONE, next=Pair(TWO.certificate, ONE.key)),
        State(ONE, old="-----BEGIN CERTIFICATE-----"),
    ],
    ids=["another's key", "no names", "password", "no key", "another's next key", "no old one"],
)
async def test_a_secret_that_cannot_be_served_is_made_anew(unfit: State) -> None:
    """It stopped the operator, at each start anew."""
    server, made = served(), hooks()
    server.collections[SECRETS].put("pots-webhooks", data=unfit.data())
    await made.refresh(Client(server))
    assert made.not_ready() == ""
    kept = state_of(await Client(server).get(SECRET, "pots-webhooks", "default"))
    assert kept is not None
    assert kept.current not in (ONE, unfit.current)


def test_a_secret_of_the_users_own_that_can_be_served_is_kept() -> None:
    own = State(ONE, next=TWO, old=ONE.certificate)
    assert state_of(Object.from_dict(SECRET.body("own", "default", data=own.data()))) == own


def served() -> FakeServer:
    server = FakeServer()
    server.collection(SECRETS, "Secret")
    for purpose in ("Validating", "Mutating"):
        kind = f"{purpose}WebhookConfiguration"
        server.collection(f"{REGISTRATION}/{kind.lower()}s", kind)
    return server


def bundle(server: FakeServer) -> str:
    """What the API server was told to trust."""
    found = server.collections[f"{REGISTRATION}/validatingwebhookconfigurations"].objects
    (entry,) = found["", "pots"]["webhooks"]
    return base64.b64decode(entry["clientConfig"]["caBundle"]).decode()


def hooks() -> Webhooks:
    made = Webhooks("pots", ENDPOINT)

    @made.validate(THING)
    async def check(asked: Admission) -> None:
        if asked.object["spec"]["n"] > 1:
            raise Denied("n is at most 1")

    return made


@asynccontextmanager
async def serving(made: Webhooks, server: FakeServer) -> AsyncIterator[Client]:
    client, stop = Client(server), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(made.run, client, Metrics(), stop)
        with anyio.fail_after(5):
            while made.port == 0:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
        yield client
        stop.set()


async def peer(port: int, trusted: str) -> bytes:
    """The certificate that is served, if this bundle trusts it."""
    context = ssl.create_default_context(cadata=trusted)
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return found


async def test_the_api_server_is_told_whom_to_call_and_trust_and_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kaos.runtime.webhooks.server._LARGEST", 1000)
    server, made = served(), hooks()
    async with serving(made, server):
        context = ssl.create_default_context(cadata=bundle(server))
        async with aiohttp.ClientSession() as session:

            async def call(body: bytes, path: str = "/validate/example.com/v1/things") -> Any:
                url = f"https://localhost:{made.port}{path}"
                async with session.post(url, data=body, ssl=context) as response:
                    return response.status, await response.text()

            code, text = await call(question({"spec": {"n": 2}}))
            assert (code, json.loads(text)["response"]["allowed"]) == (200, False)
            code, text = await call(question({"spec": {"n": 1}}))
            assert (code, json.loads(text)["response"]["allowed"]) == (200, True)
            assert (await call(b"hello"))[0] == 400
            assert (await call(b"x" * 2000))[0] == 413
            assert (await call(b"", "/elsewhere"))[0] == 404
    entry = server.collections[f"{REGISTRATION}/validatingwebhookconfigurations"].objects[
        "", "pots"
    ]["webhooks"][0]
    assert entry["rules"][0]["resources"] == ["things"]
    assert entry["clientConfig"]["url"] == "https://localhost:9443/validate/example.com/v1/things"


async def test_a_running_server_gets_a_new_certificate_that_was_trusted_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, made = served(), hooks()
    now = datetime.now(UTC)
    old = make(["localhost"], now - timedelta(days=61))
    data = {"tls.crt": old.certificate, "tls.key": old.key}
    encoded = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
    server.collections[SECRETS].put("pots-webhooks", data=encoded)
    async with serving(made, server) as client:
        trusted = bundle(server)
        first = await peer(made.port, trusted)
        assert first == ssl.PEM_cert_to_DER_cert(old.certificate)
        later = now + timedelta(seconds=OVERLAP + 60)
        monkeypatch.setattr("kaos.runtime.webhooks.server.utc_now", lambda: later)
        await made.refresh(client)
        assert await peer(made.port, trusted) != first
        assert old.certificate in bundle(server)


async def test_no_call_is_lost_at_the_end_of_a_connection() -> None:
    """hypercorn ends HTTP/2 connections after 1000 calls and forgets those under way."""
    server, made = served(), hooks()
    async with serving(made, server):
        context = ssl.create_default_context(cadata=bundle(server))
        context.set_alpn_protocols(["h2", "http/1.1"])  # as an API server asks
        _, writer = await asyncio.open_connection("localhost", made.port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()
        await writer.wait_closed()


async def test_a_connection_is_kept_longer_than_an_api_server_uses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who closes first must be the one who calls: else a call meets a connection that ends."""
    settings: list[Config] = []

    async def serve(_: Any, config: Config, *, shutdown_trigger: Any) -> None:
        settings.append(config)
        for listener in config.create_sockets().secure_sockets:
            listener.close()
        await shutdown_trigger()

    monkeypatch.setattr("kaos.runtime.webhooks.server.serve", serve)
    async with serving(hooks(), served()):
        pass
    assert settings[0].keep_alive_timeout > 90


@pytest.mark.looptime
async def test_a_handler_that_never_answers_ends_with_who_asked() -> None:
    """It and its request stayed for as long as the process, one more for each call."""
    made, metrics = Webhooks("pots", ENDPOINT), Metrics()

    @made.validate(THING)
    async def check(_: Admission) -> None:
        await asyncio.Event().wait()

    messages = [{"type": "http.request", "body": question({}), "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    path = "/validate/example.com/v1/things"
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    async with asyncio.timeout(60):
        await application(made._hooks, metrics)(scope, receive, send)
    assert sent[0]["status"] == 504
    in_flight = "controller_runtime_webhook_requests_in_flight"
    assert metrics.registry.get_sample_value(in_flight, {"webhook": path}) == 0


async def test_replicas_agree_on_one_certificate() -> None:
    server = served()
    server.latency = 0.01
    one, two = hooks(), hooks()
    await asyncio.gather(one.refresh(Client(server)), two.refresh(Client(server)))
    assert one._served == two._served
    written = server.collections[SECRETS].objects["default", "pots-webhooks"]
    await one.refresh(Client(server))
    assert server.collections[SECRETS].objects["default", "pots-webhooks"] == written


@pytest.mark.looptime
async def test_a_manager_without_rights_is_not_ready_and_says_why() -> None:
    server, made = served(), hooks()
    things(server)
    refusing = True
    server.faults.append(
        lambda r: status(403, "Forbidden", "no") if refusing and "secrets" in r.path else None
    )
    served_with: list[Client] = []

    async def serve(*_: Any) -> None:
        served_with.append(running_manager.client)
        await asyncio.sleep(1000)

    made._serve = serve  # type: ignore[assignment,method-assign]
    running_manager: Manager = manager(server)
    running_manager.beside(made)
    running_manager.watch(THING)
    async with running(running_manager):
        await asyncio.sleep(1)
        assert "no" in running_manager.readiness()["webhooks"]()
        assert not served_with
        refusing = False
        await asyncio.sleep(10)
        assert running_manager.readiness()["webhooks"]() == ""
        assert served_with


@pytest.mark.looptime
async def test_a_certificate_that_tls_refuses_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """E.g. a key too short for this machine: no reason to end the controllers."""
    refusing = True

    def load(context: ssl.SSLContext, pair: Pair) -> None:
        if refusing:
            raise ssl.SSLError(1, "ee key too small")

    monkeypatch.setattr("kaos.runtime.webhooks.server.load", load)
    made = hooks()
    made._serve = lambda *_: asyncio.sleep(1000)  # type: ignore[method-assign]
    server = served()
    things(server)
    manager_ = manager(server)
    manager_.beside(made)
    manager_.watch(THING)
    async with running(manager_):
        await asyncio.sleep(20)
        assert "too small" in manager_.readiness()["webhooks"]()
        refusing = False
        await asyncio.sleep(10)
        assert manager_.readiness()["webhooks"]() == ""


def test_one_kind_and_purpose_has_one_set_of_options() -> None:
    made = Webhooks("pots", ENDPOINT)
    made.default(CONFIG_MAP, failurePolicy="Ignore")
    made.default(CONFIG_MAP, failurePolicy="Ignore")
    with pytest.raises(ValueError, match="already"):
        made.default(CONFIG_MAP)
    configurations = made._hooks.configurations("pots", ENDPOINT, "PEM")
    (entry,) = configurations[0]["webhooks"]
    assert (entry["name"], entry["failurePolicy"]) == ("default.configmaps.core", "Ignore")


def test_a_service_is_called_by_its_cluster_names() -> None:
    endpoint = Endpoint(service=("hooks", "team"))
    assert endpoint.names == ["hooks.team.svc", "hooks.team"]
    config = endpoint.client_config("/x", "PEM")
    assert config["service"] == {"name": "hooks", "namespace": "team", "path": "/x", "port": 443}


@pytest.mark.parametrize("wrong", [{}, {"url": "http://x", "namespace": "n"}, {"url": "https://x"}])
def test_an_endpoint_that_cannot_be_called_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="webhooks: "):
        Endpoint(**wrong)  # type: ignore[arg-type]


@pytest.mark.process
def test_nothing_of_it_is_loaded_unless_asked_for() -> None:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    code = "import sys, kaos.runtime; sys.exit(any('webhooks' in m for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_configuration_that_somebody_deleted_is_put_back() -> None:
    server, made = served(), hooks()
    client = Client(server)
    await made.refresh(client)
    registered = server.collections[f"{REGISTRATION}/validatingwebhookconfigurations"]
    registered.delete("pots", "")
    await made.refresh(client)
    assert ("", "pots") in registered.objects
    version = server.version
    await made.refresh(client)
    assert server.version == version  # as desired: nothing changes
