"""`routes:`: the action of each, its name, and where it listens."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidegate.config.config import Forward, Redirect, Respond, Route, RouteListener, WebSocket
from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings, suggestion
from tidegate.config.options import ListenerOptions, RouteOptions
from tidegate.config.options.route import MatchOptions, TestOptions
from tidegate.config.tunnels import tunnels
from tidegate.config.websockets import Layer, merge

__all__ = ["RouteTable", "identity"]

ACTIONS = ("to", "redirect", "respond")
_LATER_ACTIONS = ("hub", "terminal")
_FORWARD_KEYS = ("rewrite", "host", "timeouts", "retry", "upgrades", "tunnel", "grpc_web")
_PATH_MARKS = {"exact": "=", "prefix": "", "starts_with": "^", "regex": "~"}


class RouteTable:
    """Resolves routes against the listeners and upstreams that are there."""

    def __init__(
        self,
        listeners: Mapping[str, ListenerOptions],
        known_listeners: Iterable[str],
        tcp_listeners: Iterable[str],
        known_upstreams: Iterable[str],
        findings: Findings,
    ) -> None:
        """`listeners` are the good ones for HTTP; the known ones include all that may be referred to, errors or not."""
        self._listeners = listeners
        self._known_listeners = list(known_listeners)
        self._tcp_listeners = set(tcp_listeners)
        self._known_upstreams = list(known_upstreams)
        self._findings = findings
        self._plain: dict[str, WebSocket] = {}
        self._named: dict[str, KeyPath] = {}
        self.used_upstreams: set[str] = set()
        self.used_listeners: set[str] = set()

    def route(self, options: RouteOptions, written: Mapping[str, Any], path: KeyPath) -> Route | None:
        """None when it has no action that could be resolved, which is then among the findings."""
        listeners = self._on(options, path)
        name = self._name(options, path)
        self._refer(options, path)
        action = self._action(options, written, path)
        if action is None:
            return None
        return Route(
            name=name,
            path=path,
            listeners=listeners,
            match=options.match,
            priority=options.priority,
            fall_through=options.fall_through,
            action=action,
            limits=options.limits,
            on_change=options.on_change,
        )

    # Where.

    def _on(self, options: RouteOptions, path: KeyPath) -> tuple[RouteListener, ...]:
        names = self._listeners if options.listeners is None else self._checked(options.listeners, path)
        self.used_listeners.update(names)
        settings: Layer = (options.websocket, (*path, "websocket"))
        return tuple(
            RouteListener(name, self._websocket(name, settings), self._body_limit(name, options))
            for name in names
            if name in self._listeners
        )

    def _checked(self, names: Sequence[str], path: KeyPath) -> Sequence[str]:
        for index, name in enumerate(names):
            at = (*path, "listeners", index)
            if name in names[:index]:
                self._findings.error(at, f"the listener '{name}' is given twice")
            elif name in self._tcp_listeners:
                message = f"the listener '{name}' carries TCP, and routes are for HTTP"
                self._findings.error(at, message, "leave it out")
            elif name not in self._known_listeners and not self._findings.explained(at):
                hint = suggestion(name, self._known_listeners) or _known(self._known_listeners, "listeners")
                self._findings.error(at, f"there is no listener '{name}'", hint)
        return names

    def _websocket(self, listener: str, settings: Layer) -> WebSocket:
        inherited: Layer = (self._listeners[listener].websocket, ("listeners", listener, "websocket"))
        if settings[0].written:
            return merge(inherited, settings, self._findings)
        if listener not in self._plain:
            self._plain[listener] = merge(inherited, settings, self._findings)
        return self._plain[listener]

    def _body_limit(self, listener: str, options: RouteOptions) -> int | None:
        return (options if "body" in options.limits.written else self._listeners[listener]).limits.body

    # What it is called.

    def _name(self, options: RouteOptions, path: KeyPath) -> str:
        name = options.name or identity(options.listeners, options.match)
        if options.name is None and path in self._findings.incomplete:
            return name  # its match is not what was meant
        at = (*path, "name") if options.name else path
        if name not in self._named:
            self._named[name] = at
            return name
        first = self._findings.document.place(self._named[name]).line
        if options.name:
            self._findings.error(at, f"the name '{name}' is taken by the route in line {first}", "names are unique")
        else:
            message = f"has the same listeners and match as the route in line {first}, so nothing would reach it"
            self._findings.error(at, message, "change its match or leave it out")
        return name

    # Where it goes.

    def _refer(self, options: RouteOptions, path: KeyPath) -> None:
        for name in options.to or ():
            self.used_upstreams.add(name)
            at = self._share(path, name)
            if name not in self._known_upstreams and not self._findings.explained(at):
                hint = suggestion(name, self._known_upstreams) or _known(self._known_upstreams, "upstreams")
                self._findings.error(at, f"there is no upstream '{name}'", hint, at_key=at[-1] == name)

    def _share(self, path: KeyPath, name: str) -> KeyPath:
        value = self._findings.document.values["routes"][path[1]]["to"]
        return (*path, "to", name) if isinstance(value, dict) else (*path, "to")

    def _action(
        self, options: RouteOptions, written: Mapping[str, Any], path: KeyPath
    ) -> Forward | Redirect | Respond | None:
        given = [key for key in (*ACTIONS, *_LATER_ACTIONS) if key in written]
        if len(given) != 1:
            self._not_one(given, written, path)
            return None
        self._refuse_idle_keys(given[0], options, path)
        headers = options.headers
        if options.to is not None:
            self._check_rewrite(options, path)
            to = tuple(options.to.items())
            opened = tunnels(options, path, self._findings)
            return Forward(
                to,
                options.rewrite,
                options.host,
                headers,
                options.timeouts,
                options.retry,
                opened,
                options.grpc_web,
            )
        if options.redirect is not None:
            return Redirect(options.redirect.to, options.redirect.status, headers.response)
        return Respond(options.respond, headers.response) if options.respond is not None else None

    def _not_one(self, given: list[str], written: Mapping[str, Any], path: KeyPath) -> None:
        if any(key in _LATER_ACTIONS for key in given):
            return  # refused already
        if given:
            message = f"expected exactly one of to, redirect and respond, found {' and '.join(given)}"
            self._findings.error((*path, given[1]), message, at_key=True)
        elif not any(suggestion(key, ACTIONS) for key in written.keys() - RouteOptions.model_fields.keys()):
            # A misspelt action has an error of its own.
            self._findings.error(path, "does not say where requests go", "expected one of to, redirect and respond")

    def _refuse_idle_keys(self, action: str, options: RouteOptions, path: KeyPath) -> None:
        """Keys that would do nothing beside this action."""
        if action not in ("redirect", "respond"):
            return
        idle: list[KeyPath] = [(key,) for key in _FORWARD_KEYS if key in options.written]
        if options.respond != "echo" and "limits" in options.written:
            idle.append(("limits",))
        if "request" in options.headers.written:
            idle.append(("headers", "request"))
        if options.respond in ("echo", "ready") and "response" in options.headers.written:
            idle.append(("headers", "response"))
        for key in idle:
            message = f"'{'.'.join(map(str, key))}' does nothing on a route with '{action}'"
            self._findings.error((*path, *key), message, "leave it out", at_key=True)
        if options.respond != "echo" and "websocket" in options.written:
            message = f"'websocket' does nothing on a route with '{action}'"
            self._findings.warning((*path, "websocket"), message, "every attempt gets this answer", at_key=True)

    def _check_rewrite(self, options: RouteOptions, path: KeyPath) -> None:
        matched = options.match.path
        if options.rewrite is None or options.rewrite.prefix is None:
            return
        if matched is None or matched.chosen[0] == "regex":
            message = "there is no prefix to replace: match.path is not exact, prefix or starts_with"
            self._findings.error((*path, "rewrite", "prefix"), message, "use rewrite.regex with to")


def _known(names: list[str], what: str) -> str:
    return f"the {what} are {', '.join(sorted(names)[:10])}" if names else f"the file has no {what}"


def identity(listeners: Sequence[str] | None, match: MatchOptions) -> str:
    """The name of a route without one: `edge chat.example.com/ws`.

    Order and case that do not matter are evened out, so that it stays the same route when the file is rearranged. A
    path is marked with its comparison as nginx does: `=` exact, `^` starts_with, `~` regex, nothing for prefix.
    """
    path = ""
    if match.path is not None:
        kind, text = match.path.chosen
        path = _PATH_MARKS[kind] + text
    words = [
        ",".join(sorted(listeners or ())),
        ",".join(sorted(match.host)) + path,
        "|".join(sorted(match.method)),
        *sorted(f"{name.lower()}{_test(test)}" for name, test in match.headers.items()),
        *sorted(f"?{name}{_test(test)}" for name, test in match.query.items()),
    ]
    return " ".join(word for word in words if word)


def _test(test: TestOptions) -> str:
    kind, value = test.chosen
    if kind == "not":
        return f"!{_test(value)}"
    if kind == "present":
        return ":present" if value else ":absent"
    return f"{_PATH_MARKS[kind].rstrip('=')}={value}" if kind != "prefix" else f"^={value}"
