"""Says by which proxy an address is reached, as the environment names it and as curl reads it."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen


@frozen
class Proxy:
    """Is an HTTP proxy. `authorization` is the value of its header, with its secret: it is never shown."""

    host: str
    port: int
    authorization: str | None = None

    def __repr__(self) -> str:
        return f"Proxy({self.host!r}, {self.port})"


def proxy_of(target: SplitResult, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for an address, None for a direct connection.

    `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY` name one, `NO_PROXY` the hosts that need none; small letters go first.
    This machine needs none whatever they say: to a proxy, its address means another machine. Raises `config.invalid`
    for a proxy that cannot be used.
    """
    if is_this_machine(target.hostname or ""):
        return None
    # A CGI server sets HTTP_PROXY from a header that its client sends, so that only the small letters can be trusted.
    names = [f"{target.scheme}_proxy", "all_proxy"]
    names += [name.upper() for name in names if name != "http_proxy" or "REQUEST_METHOD" not in environ]
    named = next((name for name in names if environ.get(name)), None)
    if named is None or _needs_none(target, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return None
    text = environ[named]
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or 80
    except ValueError:
        raise ConfigError(f"{named} is no address: give one such as http://proxy.example:3128") from None
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"{named} has the scheme {parts.scheme!r}: the lean carrier speaks to http:// proxies only")
    authorization = None
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(secret.encode()).decode("ascii")
    return Proxy(parts.hostname, port, authorization)


def is_this_machine(host: str) -> bool:
    """Whether a host is `localhost` or a loopback address."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _needs_none(target: SplitResult, exceptions: str) -> bool:
    host = (target.hostname or "").rstrip(".")
    port = target.port or (443 if target.scheme == "https" else 80)
    for one in exceptions.split(","):
        name = one.strip().lower()
        if name == "*":
            return True
        if name.endswith(f":{port}") and name.count(":") == 1:
            name = name.removesuffix(f":{port}")
        name = name.strip("[]").lstrip(".").rstrip(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False
