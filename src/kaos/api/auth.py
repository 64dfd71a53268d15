"""Who may call an agent: the one switch, and who is let in besides its declared callers."""

from typing import Annotated

from pydantic import Field

from kaos.api.meta import Model

Account = Annotated[
    str,
    Field(
        min_length=1,
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?([a-z0-9]([-.a-z0-9]*[a-z0-9])?|\*)$",
    ),
]
Accounts = Annotated[
    list[Account], Field(max_length=256, json_schema_extra={"x-kubernetes-list-type": "set"})
]


class TokensSecret(Model):
    """Where bearer tokens are: one a line, with its holder's name before it if it has one."""

    name: str = Field(min_length=1, max_length=253, description="The Secret's name.")
    key: str = Field(
        default="tokens", min_length=1, max_length=253, description="The key within its data."
    )


class Auth(Model):
    """Who may call an agent; without it, everybody whom the network lets through."""

    allow: Accounts = Field(
        default_factory=list,
        description="Service accounts that may call it, besides those of the agents that name it "
        "in agentNetwork.access: a name in this namespace, namespace/name, or namespace/*.",
    )
    tokens_secret: TokensSecret | None = Field(
        default=None,
        description="Bearer tokens that open it as well, one a line, with the holder's name before "
        "it if it has one; a change takes no restart.",
    )
