"""The two ends of a connection, as values (twisted.internet.address)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["IPv4Address", "IPv6Address"]

_Kind = Literal["TCP", "UDP"]


def _check_kind(kind: object) -> None:
    if kind not in ("TCP", "UDP"):
        raise ValueError(f"type must be 'TCP' or 'UDP', not {kind!r}")


@dataclass(frozen=True, order=True)
class IPv4Address:
    """One end of an IPv4 connection: *host* in dotted form, *port* as a number."""

    type: _Kind
    host: str
    port: int

    def __post_init__(self) -> None:
        _check_kind(self.type)


@dataclass(frozen=True, order=True)
class IPv6Address:
    """One end of an IPv6 connection: *host* in the form with colons, *port* as a number.

    A link-local *host* ends with its interface (``fe80::1%eth0``), and *scopeID* is its number.
    """

    type: _Kind
    host: str
    port: int
    flowInfo: int = 0
    scopeID: str | int = 0

    def __post_init__(self) -> None:
        _check_kind(self.type)
