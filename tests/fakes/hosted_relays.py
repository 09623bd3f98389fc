"""`HostedRelays` in memory, with scripted answers."""

from __future__ import annotations

from collections import deque

from billing.ports import ApplyAnswer, DesiredRelay, RelayApplied


class FakeHostedRelays:
    """Applies everything, unless `script` holds an answer for the next call (nothing is applied
    then). `relays` is the host's state, `calls` every relay it was asked to apply, in order."""

    def __init__(self) -> None:
        self.relays: dict[str, DesiredRelay] = {}
        self.calls: list[DesiredRelay] = []
        self.script: deque[ApplyAnswer] = deque()
        self.problems: list[str] = []

    def is_up(self, relay_id: str) -> bool:
        """Does it answer, seen from outside?"""
        relay = self.relays.get(relay_id)
        return relay is not None and relay.active

    async def apply(self, relay: DesiredRelay) -> ApplyAnswer:
        self.calls.append(relay)
        if self.script:
            answer = self.script.popleft()
            if not isinstance(answer, RelayApplied):
                return answer
        self.relays[relay.relay_id] = relay
        return RelayApplied()

    def url_of(self, relay: DesiredRelay) -> str:
        return f"wss://{relay.host}"

    async def check(self) -> list[str]:
        return list(self.problems)
