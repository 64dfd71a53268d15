"""The node of the embedded cluster: runs pods as processes of this machine.

`Node` puts the parts together; every other module has one subject.
"""

from kaos.local.node.gateway import PortTaken
from kaos.local.node.node import Node, NodeSettings

__all__ = ["Node", "NodeSettings", "PortTaken"]
