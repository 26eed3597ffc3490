"""`Options`: the configuration exactly as it is written, one pydantic model for each mapping of the file.

Nothing is merged or looked up here: a model knows only its own keys, their types and their defaults. The models are
also what the JSON Schema and the reference page are made from, so each field says in its description what a user must
know, and its default is the default.
"""

from tidegate.config.options.gateway import GatewayOptions
from tidegate.config.options.listener import ListenerOptions
from tidegate.config.options.route import RouteOptions
from tidegate.config.options.upstream import UpstreamOptions
from tidegate.config.options.websocket import WebSocketOptions

__all__ = ["GatewayOptions", "ListenerOptions", "RouteOptions", "UpstreamOptions", "WebSocketOptions"]
