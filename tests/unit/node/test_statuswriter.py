"""Writing a pod's status: to that pod, and to no other."""

from kaos.local.node.statuswriter import write_status
from tests.unit.node.harness import POD, Cluster, container, pod


async def test_a_status_never_reaches_a_later_object_of_the_same_name(small: Cluster) -> None:
    body = pod("web", container("never started"), nodeName="elsewhere")
    first = await small.client.create(body)
    await small.client.delete(POD, "web", "default")
    await small.client.patch(
        POD, "web", "default", {"status": {"phase": "Failed"}}, subresource="status"
    )
    await small.client.delete(POD, "web", "default")
    await small.until_gone(POD, "web")
    await write_status(small.client, POD, first, {"phase": "Running"})  # gone: no error
    second = await small.client.create(body)
    await write_status(small.client, POD, first, {"phase": "Running"})
    assert (await small.pod("web")).status["phase"] == "Pending"
    await write_status(small.client, POD, second, {"phase": "Running"})
    assert (await small.pod("web")).status["phase"] == "Running"
