"""Which addresses an episode may reach. Pure: no names are looked up, nothing is contacted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from agent_rl.errors import UserError

_PORTS = {"http": 80, "https": 443}
_WEB = frozenset(_PORTS.values())


@dataclass(frozen=True, slots=True)
class _Rule:
    host: str  # lower case; for `subdomains`, with a leading dot
    ports: frozenset[int] | None  # none: any
    subdomains: bool

    def allows(self, host: str, port: int) -> bool:
        named = host.endswith(self.host) if self.subdomains else host == self.host
        return named and (self.ports is None or port in self.ports)


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts with their ports. Whatever is not on it is not contacted.

    An entry is `shop.test` (ports 80 and 443), `127.0.0.1:8000`, `shop.test:*` (any port) or `*.shop.test` (all hosts
    below it). `entries` are as they were written, to be shown.
    """

    entries: tuple[str, ...]
    rules: tuple[_Rule, ...]

    @classmethod
    def of(cls, entries: Sequence[str]) -> Self:
        """Raises `UserError` for an entry that is none of these."""
        return cls(tuple(entries), tuple(map(_rule, entries)))

    @classmethod
    def site_of(cls, url: str) -> Self:
        """The one site of an address: its host with its port alone."""
        host, port = address(url)
        return cls.of((f"[{host}]:{port}" if ":" in host else f"{host}:{port}",))

    def allows(self, host: str, port: int) -> bool:
        """Whether this may be contacted."""
        host = _plain(host)
        return any(rule.allows(host, port) for rule in self.rules)

    def allows_url(self, url: str) -> bool:
        """Whether a page of this address may be opened; a blank one always may."""
        if url == "about:blank":
            return True
        if urlsplit(url).scheme not in _PORTS:
            return False
        try:
            return self.allows(*address(url))
        except UserError:
            return False

    def __str__(self) -> str:
        return ", ".join(self.entries) or "nothing"


def address(url: str) -> tuple[str, int]:
    """Host and port of an http or https address. Raises `UserError` where there are none."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError as error:  # an invalid port
        raise UserError(f"{url} is no address: {error}.") from error
    if not parts.hostname or port is None:
        raise UserError(f"{url} is no address of a page: it should begin with http:// or https:// and a host.")
    return _plain(parts.hostname), port


def _plain(host: str) -> str:
    return host.lower().rstrip(".").strip("[]")


def _rule(entry: str) -> _Rule:
    wrong = UserError(f"{entry!r} names no host: write host, host:port, host:* or *.domain, without http://.")
    host, separator, port = entry.rpartition(":")
    if not separator or (":" in host and not host.startswith("[")):  # no port, or an IPv6 address without one
        host, port = entry, ""
    subdomains = host.startswith("*.")
    host = _plain(host[1:] if subdomains else host)
    if not host.strip(".") or "/" in host or "*" in host or not (port in ("", "*") or port.isdecimal()):
        raise wrong
    ports = None if port == "*" else frozenset((int(port),)) if port else _WEB
    return _Rule(host, ports, subdomains)
