"""Where one socket stands with NIP-42: challenge, answer, result."""

from __future__ import annotations

from enum import Enum, auto

from billing.ports import Clock, Ids
from bot.nostr.events import Event
from bot.nostr.keys import Keys
from bot.nostr.nip42 import auth_event

# `restricted:` means "known, but not allowed"; some relays say it to those they do not know yet.
_PREFIXES = ("auth-required", "restricted")


def asks_for_auth(message: str) -> bool:
    """Whether an OK, CLOSED or NOTICE wants us to authenticate first."""
    head = message.strip().lower()
    return head.startswith(_PREFIXES) or "auth-required" in head


class AuthState(Enum):
    """Of one socket."""

    UNKNOWN = auto()  # nobody is authenticated
    PENDING = auto()  # our answer was written, the relay's OK is awaited
    ACCEPTED = auto()
    REFUSED = auto()


class RelayAuth:
    """Decides when to answer a challenge; holds no socket.

    `keys` is the identity that this relay may learn; None: it may learn none.
    The challenge may come before or after the first `auth-required:`; both orders end in one
    answer for each challenge, at most `max_auths` on one socket.
    """

    def __init__(
        self, relay_url: str, keys: Keys | None, clock: Clock, ids: Ids, max_auths: int
    ) -> None:
        self.state = AuthState.UNKNOWN
        self._relay_url = relay_url
        self._keys = keys
        self._clock = clock
        self._ids = ids
        self._left = max_auths
        self._challenge: str | None = None
        self._event_id: str | None = None

    def challenged(self, challenge: str) -> Event | None:
        """A challenge came: the event to answer it with, or None.

        Answered at once where it is allowed: some relays do not object to a query for gift wraps,
        they just keep them back from those they do not know.
        """
        self._challenge = challenge
        return self.wanted()

    def wanted(self) -> Event | None:
        """The event to write now, if there is a challenge to answer and it is allowed."""
        keys = self._keys
        if keys is None or self._challenge is None or self._left <= 0:
            return None
        challenge, self._challenge = self._challenge, None
        self._left -= 1
        event = auth_event(
            keys, self._relay_url, challenge, self._clock.now(), self._ids.token_bytes(32)
        )
        self.state, self._event_id = AuthState.PENDING, event.id
        return event

    def may_help(self) -> bool:
        """Whether something refused now may be accepted after authentication."""
        if self.state is AuthState.PENDING:
            return True
        return self.state is AuthState.UNKNOWN and self._keys is not None and self._left > 0

    def answered(self, event_id: str, accepted: bool) -> bool:
        """True if this OK was for our answer; `state` has changed then."""
        if self.state is not AuthState.PENDING or event_id != self._event_id:
            return False
        self.state = AuthState.ACCEPTED if accepted else AuthState.REFUSED
        return True

    def gave_up(self, event_id: str) -> bool:
        """No OK in time: True if that was our last answer. Some relays accept without a word."""
        return self.answered(event_id, True)
