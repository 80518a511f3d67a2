"""Decides who may come in: who was given the token, from a page of the inspector itself, under its own name."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping

from power_loop.contrib.inspect.http_server import HOST, RefusedRequest, Request

#: What every answer says: nothing comes from elsewhere, no text becomes markup, nobody frames or keeps the page.
SAFETY: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_TOKEN_BYTES = 32
# Browsers leave it out.
_USUAL_PORT = 80


class Door:
    """Holds the token, and the cookie that it is exchanged for."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._pass = secrets.token_urlsafe(_TOKEN_BYTES)
        self._once: str | None = None
        self.port = 0

    @property
    def address(self) -> str:
        """What is opened in a browser. What stands behind the # is sent to nobody: the page reads it and removes it."""
        return f"http://{HOST}:{self.port}/#token={self.token}"

    def make_link(self) -> str:
        """Return an address that opens once, and ends the one that was made before."""
        self._once = secrets.token_urlsafe(_TOKEN_BYTES)
        return f"http://{HOST}:{self.port}/#token={self._once}"

    def check_name(self, request: Request) -> None:
        """Refuse what was sent to another name: a site whose name leads here would read us as its own."""
        if request.headers.get("host") not in self._hosts():
            raise RefusedRequest(421, f"this is the inspector: open it as http://{HOST}:{self.port}/")
        # `none` is a person who typed the address; a browser that is too old to say it sends nothing.
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and request.path != "/":
            raise RefusedRequest(403, "another site asked for this")

    def check_origin(self, request: Request) -> None:
        """Refuse a request that changes something unless a page of ours made it."""
        if request.headers.get("origin") not in {f"http://{host}" for host in self._hosts()}:
            raise RefusedRequest(403, "only the inspector's own page may ask for this")
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise RefusedRequest(415, "give JSON")

    def check_pass(self, request: Request) -> None:
        """Refuse who did not bring the token before."""
        cookies = dict(one.strip().partition("=")[::2] for one in request.headers.get("cookie", "").split(";"))
        if not _is_same(cookies.get(self._cookie, ""), self._pass):
            raise RefusedRequest(401, "open the address that `power-loop inspect` printed: it has the token")

    def give_pass(self, token: object) -> str:
        """Return the cookie for a token."""
        if isinstance(token, str) and self._once is not None and _is_same(token, self._once):
            self._once = None
        elif not isinstance(token, str) or not _is_same(token, self.token):
            raise RefusedRequest(401, "this is not the token of the inspector that runs: open the address it printed")
        # Other servers of this machine are sent it too, so it goes with as few addresses as it can.
        return f"{self._cookie}={self._pass}; HttpOnly; SameSite=Strict; Path=/api/"

    @property
    def _cookie(self) -> str:
        # All ports of a machine share their cookies.
        return f"power_loop_inspect_{self.port}"

    def _hosts(self) -> tuple[str, ...]:
        hosts = (f"{HOST}:{self.port}", f"localhost:{self.port}")
        return (*hosts, HOST, "localhost") if self.port == _USUAL_PORT else hosts


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8"))
