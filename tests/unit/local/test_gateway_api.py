"""The Gateway API of the embedded cluster: enough to be found and attached to."""

from kaos.local import gateway_api
from kaos.reconcilers.settings import Settings


def test_the_crds_are_named_as_the_api_demands() -> None:
    for crd in gateway_api.crds():
        names = crd["spec"]["names"]
        assert crd["metadata"]["name"] == f"{names['plural']}.{crd['spec']['group']}"
        assert [version["name"] for version in crd["spec"]["versions"]] == ["v1"]


def test_the_gateway_is_the_one_that_the_controllers_attach_to() -> None:
    (gateway,) = (body for body in gateway_api.objects(1234) if body["kind"] == "Gateway")
    settings = Settings()
    assert gateway["metadata"] == {
        "name": settings.gateway_name,
        "namespace": settings.gateway_namespace,
    }
    assert gateway["spec"]["listeners"][0]["port"] == 1234
