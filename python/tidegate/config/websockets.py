"""The WebSocket settings of a route on a listener: the route's keys, then the listener's, then the defaults.

Mappings merge key by key: a route that says only `ping: {every: 5s}` keeps its listener's `ping.timeout`. Where the
result passes bytes as they are (`frames: opaque`), settings that need frames have no meaning: inherited ones are
dropped, and one written on purpose, beside `opaque` or below it, is an error.
"""

from typing import Any

from tidegate.config.config import WebSocket
from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings
from tidegate.config.options import WebSocketOptions
from tidegate.config.options.values import Options
from tidegate.config.units import show_duration

__all__ = ["Layer", "merge"]

_NEED_FRAMES = (
    "deflate",
    "subprotocols",
    "ping",
    "max_message",
    "max_frame",
    "max_fragments",
    "messages",
    "close_codes",
    "on_client_lost",
    "close_timeout",
    "upstream_protocol",
)

Layer = tuple[WebSocketOptions, KeyPath]
"""Settings, and where they are written."""


def merge(listener: Layer, route: Layer, findings: Findings) -> WebSocket:
    """Doubts about the result are told at the route, or at the listener that it all comes from."""
    merged = _merged(listener[0], route[0])
    if merged.frames == "opaque":
        _refuse_frames(listener, route, findings)
        return _opaque(merged)
    _doubt_idle(merged, listener, route, findings)
    return _settings(_without_deflate(merged, listener, route, findings))


def _merged(listener: WebSocketOptions, route: WebSocketOptions) -> WebSocketOptions:
    return WebSocketOptions.model_construct(**_overlaid(WebSocketOptions(), listener, route))


def _overlaid(*layers: Options) -> dict[str, Any]:
    """What each layer writes over the one before."""
    values = {name: getattr(layers[0], name) for name in type(layers[0]).model_fields}
    for layer in layers[1:]:
        for name in layer.written:
            values[name] = _over(values[name], getattr(layer, name))
    return values


def _over(below: object, above: object) -> object:
    if not isinstance(above, Options):
        return above
    base = below if isinstance(below, Options) else type(above)()
    return type(above).model_construct(**_overlaid(base, above))


def _settings(merged: WebSocketOptions) -> WebSocket:
    return WebSocket(
        enabled=merged.enabled,
        upstream_protocol=merged.upstream_protocol,
        over=merged.over,
        frames=merged.frames,
        deflate=merged.deflate,
        origins=merged.origins,
        missing_origin=merged.missing_origin,
        subprotocols=merged.subprotocols,
        idle_after=merged.idle.after,
        idle_counts=merged.idle.counts,
        ping=merged.ping,
        max_lifetime=merged.max_lifetime,
        max_message=merged.max_message,
        max_frame=merged.max_frame,
        max_fragments=merged.max_fragments,
        messages=merged.messages,
        close_codes=merged.close_codes,
        on_client_lost=merged.on_client_lost,
        close_timeout=merged.close_timeout,
    )


def _opaque(merged: WebSocketOptions) -> WebSocket:
    defaults = {name: getattr(WebSocketOptions(), name) for name in _NEED_FRAMES}
    idle = merged.idle.model_copy(update={"counts": "any"})
    return _settings(merged.model_copy(update={**defaults, "ping": None, "idle": idle, "over": ("h1",)}))


def _refuse_frames(listener: Layer, route: Layer, findings: Findings) -> None:
    opaque_here = route if "frames" in route[0].written else listener
    for options, path in [route] if opaque_here is route else [listener, route]:
        keys: list[KeyPath] = [(name,) for name in _NEED_FRAMES if name in options.written]
        if "counts" in options.idle.written and options.idle.counts == "data":
            keys.append(("idle", "counts"))
        for key in keys:
            if options.ping is None and key == ("ping",):
                continue  # `never` is what opaque gives
            message = f"'{key[-1]}' needs frames, and with 'frames: opaque' bytes pass as they are"
            findings.error((*path, *key), message, "leave it out, or use 'frames: strict'", at_key=True)


def _without_deflate(merged: WebSocketOptions, listener: Layer, route: Layer, findings: Findings) -> WebSocketOptions:
    """A message that is left out takes what later ones are compressed with along: deflate cannot stay end to end."""
    if merged.messages is None or merged.messages.over != "drop":
        return merged
    for options, path in (route, listener):
        if "deflate" in options.written and merged.deflate == "pass":
            message = "messages that are left out would break the compression of those behind them"
            findings.error((*path, "deflate"), message, "use 'deflate: off' beside 'over: drop', or leave it out")
            break
    return merged.model_copy(update={"deflate": "off"})


def _doubt_idle(merged: WebSocketOptions, listener: Layer, route: Layer, findings: Findings) -> None:
    ping, after = merged.ping, merged.idle.after
    if ping is None or after is None or after >= 2 * ping.every:
        return
    options, path = route if {"idle", "ping"} & route[0].written else listener
    key = "idle" if "idle" in options.written else "ping"
    message = f"idle.after {show_duration(after)} is less than twice ping.every {show_duration(ping.every)}"
    findings.warning((*path, key), message, "a silent connection is closed before pings can tell whether it lives")
