"""Callers' service-account tokens: TokenReview and published keys, against a stand-in server."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kaos.agent.auth import open as auth_open
from kaos.agent.auth.guard import AuthUnavailable, Forbidden
from kaos.agent.auth.jwks import Jwks
from kaos.agent.auth.service_accounts import AllowFile, AllowList, ApiServer, TokenReview
from kaos.agent.settings import Settings
from kaos.telemetry import serving
from kaos.testing.model import ScriptedModel

CALLER = "system:serviceaccount:ns:caller"
TOKEN = "header.payload.signature"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Cluster:
    """An API server that knows some tokens, and publishes keys."""

    def __init__(self) -> None:
        self.known = {TOKEN: (CALLER, ["kaos"])}
        self.keys: list[dict[str, Any]] = []
        self.own = "own-token"
        self.status = 0
        self.asked = 0
        self.at_once = self.most_at_once = 0
        self.app = Starlette(
            routes=[
                Route("/apis/authentication.k8s.io/v1/tokenreviews", self.review, methods=["POST"]),
                Route("/openid/v1/jwks", self.publish),
            ]
        )

    def refused(self, request: Request) -> Response | None:
        self.asked += 1
        if self.status:
            return JSONResponse({"message": "no"}, status_code=self.status)
        if request.headers["authorization"] != f"Bearer {self.own}":
            return JSONResponse({"message": "who are you?"}, status_code=401)
        return None

    async def review(self, request: Request) -> Response:
        if (answer := self.refused(request)) is not None:
            return answer
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(0.002)
        self.at_once -= 1
        spec = (await request.json())["spec"]
        user, audiences = self.known.get(spec["token"], ("", []))
        shared = [audience for audience in audiences if audience in spec["audiences"]]
        status: dict[str, Any] = {"authenticated": False, "error": "unknown"}
        if user and shared:
            status = {"authenticated": True, "user": {"username": user}, "audiences": shared}
        return JSONResponse({"status": status}, status_code=201)

    async def publish(self, request: Request) -> Response:
        return self.refused(request) or JSONResponse({"keys": self.keys})


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def api(cluster: Cluster, tmp_path: Path) -> AsyncIterator[ApiServer]:
    (tmp_path / "token").write_text(f"{cluster.own}\n")
    async with serving.running(cluster.app) as url:
        yield ApiServer(url, tmp_path)


@pytest.mark.parametrize(
    ("entries", "identity", "allowed"),
    [
        (["ns/caller"], CALLER, True),
        (["caller"], CALLER, True),
        (["ns/*"], CALLER, True),
        (["*"], CALLER, True),
        ([CALLER], CALLER, True),
        (["other/caller", "ns/other", "other"], CALLER, False),
        (["ns/call"], CALLER, False),
        ([], CALLER, False),
        (["ns/*"], "system:serviceaccount:ns2:caller", False),
        (["ns/*"], "admin", False),
        (["ns/*"], "ns:caller", False),
        (["ns/*"], "system:serviceaccount:ns", False),
    ],
)
def test_the_list_says_who_may_call(entries: list[str], identity: str, allowed: bool) -> None:
    checked = AllowList(entries, "ns")
    if allowed:
        assert checked.check(identity) == identity
    else:
        with pytest.raises(Forbidden, match="is not allowed to call this agent"):
            checked.check(identity)


def test_a_list_in_a_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "allow"
    path.write_text("other\n\n")
    checked = AllowFile(path, ["ns/always"], "ns")
    with pytest.raises(Forbidden):
        checked.check(CALLER)
    path.write_text("other\nns/caller\n")
    assert checked.check(CALLER) == CALLER
    path.unlink()  # a list that is gone allows nobody, but for those who need no list
    for _ in range(2):
        with pytest.raises(Forbidden):
            checked.check(CALLER)
    assert checked.check("system:serviceaccount:ns:always")
    path.write_text("caller")
    assert checked.check(CALLER) == CALLER


class TestTokenReview:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    async def review(self, api: ApiServer, clock: Clock) -> AsyncIterator[TokenReview]:
        made = TokenReview(api, "kaos", AllowList(["caller"], "ns"), clock)
        yield made
        await made.close()

    async def test_a_callers_token_is_its_account(
        self, review: TokenReview, cluster: Cluster
    ) -> None:
        assert await review.identify(TOKEN) == CALLER
        assert await review.identify("header.payload.forged") is None
        assert await review.identify("no-jwt") is None
        assert cluster.asked == 2

    async def test_a_token_for_another_audience_is_none(
        self, review: TokenReview, cluster: Cluster
    ) -> None:
        cluster.known[TOKEN] = (CALLER, ["vault"])
        assert await review.identify(TOKEN) is None

    async def test_a_server_that_knows_no_audiences_is_not_believed(
        self, review: TokenReview, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        status = {"authenticated": True, "user": {"username": CALLER}}

        async def answer(*_: Any) -> Any:
            return {"status": status}

        monkeypatch.setattr(ApiServer, "ask", answer)
        assert await review.identify(TOKEN) is None

    async def test_others_are_forbidden(self, review: TokenReview, cluster: Cluster) -> None:
        cluster.known[TOKEN] = ("system:serviceaccount:ns:other", ["kaos"])
        for _ in range(2):
            with pytest.raises(Forbidden):
                await review.identify(TOKEN)
        assert cluster.asked == 1

    async def test_an_answer_holds_for_a_minute(
        self, review: TokenReview, cluster: Cluster, clock: Clock
    ) -> None:
        for _ in range(3):
            assert await review.identify(TOKEN) == CALLER
        assert cluster.asked == 1
        cluster.known.clear()  # the pod was deleted
        clock.now += 61
        assert await review.identify(TOKEN) is None

    async def test_what_is_remembered_is_bounded(
        self, review: TokenReview, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kaos.agent.auth.service_accounts.MAX_KNOWN", 5)
        await asyncio.gather(*(review.identify(f"a.b.{n}") for n in range(20)))
        assert len(review._known) == 5

    async def test_few_are_asked_for_at_once(self, review: TokenReview, cluster: Cluster) -> None:
        await asyncio.gather(*(review.identify(f"a.b.{n}") for n in range(50)))
        assert 2 <= cluster.most_at_once <= 16

    async def test_our_own_token_is_read_again_when_it_was_renewed(
        self, review: TokenReview, cluster: Cluster, api: ApiServer
    ) -> None:
        assert await review.identify(TOKEN) == CALLER
        cluster.own = "renewed"
        (api.account / "token").write_text("renewed")
        assert await review.identify("header.payload.forged") is None

    @pytest.mark.parametrize("broken", ["status", "token", "server"])
    async def test_a_server_that_cannot_be_asked_is_no_yes(
        self, review: TokenReview, cluster: Cluster, api: ApiServer, broken: str
    ) -> None:
        if broken == "status":
            cluster.status = 403
        elif broken == "token":
            (api.account / "token").unlink()
        else:
            object.__setattr__(api, "url", "http://127.0.0.1:9")
        with pytest.raises(AuthUnavailable) as caught:
            await review.identify(TOKEN)
        assert caught.value.status == 503
        assert TOKEN not in str(caught.value)


class TestJwks:
    issuer = "https://kubernetes.default.svc.cluster.local"
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ec_key = ec.generate_private_key(ec.SECP256R1())

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    async def jwks(self, api: ApiServer, clock: Clock, cluster: Cluster) -> AsyncIterator[Jwks]:
        self.publish(cluster, one=self.rsa_key, two=self.ec_key)
        allowed = AllowList(["caller"], "ns")
        url = f"{api.url}/openid/v1/jwks"
        made = Jwks(api, url, self.issuer, "kaos", allowed, clock)
        yield made
        await made.close()

    def publish(self, cluster: Cluster, **keys: Any) -> None:
        algorithm = {rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm}
        cluster.keys = []
        for name, key in keys.items():
            is_rsa = isinstance(key, rsa.RSAPrivateKey)
            kind = algorithm[rsa.RSAPrivateKey] if is_rsa else jwt.algorithms.ECAlgorithm
            made = kind.to_jwk(key.public_key(), as_dict=True)
            cluster.keys.append({**made, "kid": name, "use": "sig"})

    def token(self, key: Any = rsa_key, kid: str = "one", alg: str = "RS256", **claims: Any) -> str:
        payload = {
            "iss": self.issuer,
            "aud": ["kaos"],
            "sub": CALLER,
            "exp": time.time() + 600,
            **claims,
        }
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, key, algorithm=alg, headers={"kid": kid})

    async def test_a_token_signed_by_the_cluster_is_its_account(self, jwks: Jwks) -> None:
        assert await jwks.identify(self.token()) == CALLER
        assert await jwks.identify(self.token(self.ec_key, "two", "ES256")) == CALLER

    @pytest.mark.parametrize(
        "claims",
        [
            {"aud": ["vault"]},
            {"aud": None},
            {"iss": "https://elsewhere"},
            {"exp": 1},
            {"exp": None},
            {"sub": None},
            {"nbf": 9_999_999_999},
            {"kid": "unknown"},
        ],
    )
    async def test_a_token_with_a_wrong_claim_is_none(
        self, jwks: Jwks, claims: dict[str, Any]
    ) -> None:
        assert await jwks.identify(self.token(**claims)) is None

    async def test_a_forged_token_is_none(self, jwks: Jwks, cluster: Cluster) -> None:
        stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = str(cluster.keys[0]["n"])
        for forged in (
            self.token(stranger),
            self.token(self.ec_key, "one", "ES256"),
            self.token(None, alg="none"),
            self.token(public.ljust(64, "x"), alg="HS256"),
            self.token()[:-4] + "AAAA",
            "a.b.c",
            "no-jwt",
        ):
            assert await jwks.identify(forged) is None

    async def test_without_an_issuer_it_is_who_made_our_own_token(
        self, jwks: Jwks, api: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jwks, "_issuer", "")
        cluster.own = self.token(iss="https://cloud.example/cluster-1")
        (api.account / "token").write_text(cluster.own)
        assert await jwks.identify(self.token(iss="https://cloud.example/cluster-1")) == CALLER
        assert await jwks.identify(self.token()) is None

    async def test_others_are_forbidden(self, jwks: Jwks) -> None:
        with pytest.raises(Forbidden):
            await jwks.identify(self.token(sub="system:serviceaccount:ns:other"))

    async def test_keys_rotate_and_strange_ones_do_not_flood_the_server(
        self, jwks: Jwks, cluster: Cluster, clock: Clock
    ) -> None:
        assert await jwks.identify(self.token()) == CALLER
        for number in range(20):
            assert await jwks.identify(self.token(kid=f"strange-{number}")) is None
        assert cluster.asked == 1
        self.publish(cluster, three=self.rsa_key)
        clock.now += 11
        assert await jwks.identify(self.token(kid="three")) == CALLER
        assert await jwks.identify(self.token(kid="one")) is None
        assert cluster.asked == 2

    async def test_keys_that_are_known_serve_on_while_the_server_is_down(
        self, jwks: Jwks, cluster: Cluster, clock: Clock
    ) -> None:
        assert await jwks.identify(self.token()) == CALLER
        cluster.status = 500
        clock.now += 601
        assert await jwks.identify(self.token()) == CALLER
        clock.now += 11
        with pytest.raises(AuthUnavailable):
            await jwks.identify(self.token(kid="new"))


async def test_over_http(
    start_agent: Any,
    ask: Any,
    model: ScriptedModel,
    api: ApiServer,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(auth_open, "ApiServer", lambda url: ApiServer(url, api.account))
    model.say("ok", repeat=True)
    url = await start_agent(
        auth_service_accounts="tokenreview",
        auth_allow="ns/caller",
        auth_api_server=api.url,
        auth_tokens="a-person",
    )
    cluster.known["a.b.other"] = ("system:serviceaccount:ns:other", ["kaos"])
    expected = {TOKEN: 200, "a-person": 200, "a.b.other": 403, "a.b.forged": 401}
    for token, status in expected.items():
        assert (await ask(url, headers={"authorization": f"Bearer {token}"}))[0] == status
    cluster.status = 500
    status, body = await ask(url, headers={"authorization": "Bearer a.b.new"})
    assert (status, body["error"]["code"]) == (503, "auth_unavailable")
    printed = "".join(capfd.readouterr())
    assert f"caller={CALLER}" in printed
    assert TOKEN not in printed
    assert cluster.own not in printed


def test_in_a_cluster_the_api_server_is_known() -> None:
    given: dict[str, Any] = {"name": "a", "model_api_url": "http://m", "model_name": "m"}
    for host, url in (("10.0.0.1", "https://10.0.0.1:6443"), ("fd::1", "https://[fd::1]:6443")):
        env = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "6443"}
        settings = Settings(**given, auth_service_accounts="jwks", auth_allow="ns/a")
        (verifier,) = auth_open.open_verifiers(settings, env)
        assert isinstance(verifier, Jwks)
        assert verifier._url == f"{url}/openid/v1/jwks"
