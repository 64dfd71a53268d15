"""Whether the cluster makes tokens for service accounts: asked once, before anything is decided.

Every real cluster does, and the embedded one does not; its discovery says so.
"""

from typing import Any

import msgspec

from kaos.runtime import Client
from kaos.runtime.errors import from_status
from kaos.runtime.transport import JSON, HttpRequest, send

TOKEN_REQUEST = "serviceaccounts/token"  # noqa: S105 - a name in the API


async def makes_account_tokens(client: Client) -> bool:
    """Whether pods can have tokens of their service accounts.

    Raises:
        ApiError: The API server does not tell what it serves.
    """
    request = HttpRequest("GET", "/api/v1", accept=JSON, idempotent=True)
    answer = await send(client.transport, request)
    if answer.status != 200:
        raise from_status(answer.status, answer.body, request=str(request))
    served = msgspec.json.decode(answer.body, type=dict[str, Any])
    return any(resource["name"] == TOKEN_REQUEST for resource in served["resources"])
