"""How patient one relay connection is and how much it holds, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Exponential back-off with jitter, in seconds."""

    first_s: float = 1.0
    factor: float = 2.0
    max_s: float = 300.0  # a relay that was away for a night is back within five minutes
    settled_after_s: float = 30.0  # open this long, the next loss counts as the first

    def delay_s(self, failures: int, uniform: float) -> float:
        """After so many failures in a row (≥ 1); `uniform` in [0, 1) spreads it over half."""
        # Capped before the power: a relay that is down for a month must not overflow a float.
        grown = self.first_s * self.factor ** min(failures - 1, 32)
        return min(self.max_s, grown) * (0.5 + 0.5 * uniform)


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Times in seconds, sizes in entries; every one bounds what a hostile relay can cost."""

    send_s: float = 10.0  # a relay that does not read for this long is gone
    close_s: float = 3.0  # a little over the socket's own closing time
    ok_s: float = 5.0  # relays answer in well under one second
    auth_s: float = 5.0
    lone_req_s: float = 2.0  # a query that the relay neither confirms nor closes counts as live
    closed_retry_s: float = 30.0  # a query that the relay closed is asked again after this
    closed_retry_max_s: float = 600.0
    busy_s: float = 0.05  # work on one relay's messages after which the others get a turn
    max_auths: int = 8  # challenges that we sign on one socket
    max_waiting: int = 1024  # events without an OK
    max_queries: int = 2048  # relays allow 20 to some hundreds; beyond it we leak
    max_control: int = 8192  # REQ, CLOSE, AUTH and resends that wait for the socket
    seen_ids: int = 4096  # per query, ~0.2 kB each
