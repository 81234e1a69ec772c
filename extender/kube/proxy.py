"""Which HTTP proxy leads to the API server, by the rules that kubectl follows.

Owns the reading of HTTPS_PROXY and NO_PROXY. aiohttp's own reading ignores CIDR entries, and the in-cluster address of
the API server is usually excluded by one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def environment_proxy(server: str, environ: Mapping[str, str]) -> str | None:
    """The proxy for the URL ``server`` according to the environment, None for a direct connection."""
    scheme = urlsplit(server).scheme
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    proxy = next((environ[name] for name in names if environ.get(name)), None)
    no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if proxy is None or bypasses_proxy(server, no_proxy):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def bypasses_proxy(server: str, no_proxy: str) -> bool:
    """Whether the host of the URL ``server`` is reached directly: Go's rules (golang.org/x/net/http/httpproxy).

    True for localhost and loopback addresses, and where an entry of the comma-separated ``no_proxy`` is ``*``, the
    address, a CIDR block around it, the host name, or a domain above it (``.domain`` excludes the domain itself). An
    entry may end in ``:port``.
    """
    parts = urlsplit(server)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_matches(entry.strip().lower(), host, port, address) for entry in no_proxy.split(","))


def _matches(entry: str, host: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if entry in ("", "*"):
        return entry == "*"
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, entry_port = entry.rpartition(":")
    if colon and entry_port.isdigit() and (":" not in name or name.startswith("[")):
        if int(entry_port) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if address is not None:
        return _address(entry) == address
    entry = entry.removeprefix("*")
    return host == entry or host.endswith(entry if entry.startswith(".") else f".{entry}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
