"""The control plane over HTTP: health, metrics, and the few commands that operators need.

It has a port of its own and is served by Python, so that it answers when the engine drains or is full.
"""

from tidegate.admin.app import Control
from tidegate.admin.server import AppServer, open_socket
from tidegate.admin.service import AdminService

__all__ = ["AdminService", "AppServer", "Control", "open_socket"]
