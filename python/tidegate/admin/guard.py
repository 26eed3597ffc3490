"""Who may speak to the admin address.

With a token, whoever has it. Without one, whoever reaches the address, which is this machine by default; but a browser
on this machine reaches it for any page it shows, in two ways. *DNS rebinding*: a page's own name is made to point here,
so requests carry that name as Host; only addresses and `localhost` are taken, which nobody else can own. *Cross-site
requests*: a form or script of another site posts here; browsers then say so in Origin or Sec-Fetch-Site.

`/ready` and `/live` are for load balancers and orchestrators: they tell nothing and need nothing.
"""

import hmac
import re
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Guard", "refusal"]

OPEN = frozenset({"/ready", "/live"})
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:/@\[\]]+))(?::[0-9]{1,5})?")


class Guard:
    """Passes a request on, or refuses it with the reason. `token` may be replaced while serving."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None
        if scope["type"] == "http" and scope["path"] not in OPEN:
            refused = refusal(self.token, scope["method"], Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await refused(scope, receive, send)


def refusal(token: str | None, method: str, headers: Headers) -> JSONResponse | None:
    """The answer to a request that may not pass, or None."""
    if token is not None:
        return None if _authorized(token, headers) else _refuse(401, "unauthorized", "a bearer token is needed")
    if not _is_local_name(headers.get("host", "")):
        return _refuse(403, "host_refused", "without a token, Host must be an address or localhost")
    if method not in ("GET", "HEAD") and _is_cross_site(headers):
        return _refuse(403, "cross_site", "a page of another site may not do this")
    return None


def _authorized(token: str, headers: Headers) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # Compared as bytes in constant time: the time must not tell how much of a guess is right.
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _is_local_name(host: str) -> bool:
    match = _HOST.fullmatch(host)
    name = (match[1] or match[2]).lower() if match else ""
    return name == "localhost" or _is_address(name)


def _is_cross_site(headers: Headers) -> bool:
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _refuse(status: int, error: str, reason: str) -> JSONResponse:
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": error, "reason": reason}, status, headers)
