"""YAML that users write, read so that no document costs the controller more than it is long.

Guarantees: what a document amounts to once its aliases and merge keys are followed is counted
before anything is built, over the parser's events: one of a few hundred bytes that means billions
of nodes took the event loop, and then all memory, from everybody else's resources. So are how deep
it nests and how long its numbers are, both of which cost far more than their length. What is wrong
is one line.

Does not: know what the document is for; anchors used as people use them are followed.
"""

from typing import Any

import yaml

NODES, DEPTH, NUMBER = 20_000, 64, 1_000
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UserYamlError(ValueError):
    """The text is no YAML, or more of it than is read."""


def load(text: str) -> Any:
    """The document that a text is.

    Raises:
        UserYamlError: it is none, or too much.
    """
    try:
        _measure(text)
        return yaml.load(text, Loader=LOADER)  # noqa: S506 - the safe one
    except UserYamlError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserYamlError(" ".join(str(error).split())) from error


def _measure(text: str) -> None:
    """Count the nodes of the document as if each alias were written out, which merging does."""
    nodes = 0
    sizes: dict[str, int] = {}  # by an anchor: the nodes of what is complete under it
    inside: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = inside.pop()
            if anchor:
                sizes[anchor] = nodes - before
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise UserYamlError(f"alias *{event.anchor} stands before the end of what it names")
            nodes += sizes[event.anchor]
        else:
            if isinstance(event, yaml.ScalarEvent):
                _check_number(event)
                if event.anchor:
                    sizes[event.anchor] = 1
            else:
                inside.append((event.anchor, nodes))
            nodes += 1
        if len(inside) > DEPTH:
            raise UserYamlError(f"it nests deeper than {DEPTH} levels")
        if nodes > NODES:
            raise UserYamlError(f"with its aliases it has more than {NODES} nodes")


def _check_number(event: yaml.ScalarEvent) -> None:
    plain = bool(event.implicit and event.implicit[0])
    if plain and len(event.value) > NUMBER and event.value[0] in "+-.0123456789":
        raise UserYamlError(f"a number has more than {NUMBER} characters; quote it if it is a text")
