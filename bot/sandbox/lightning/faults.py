"""Scripted misbehaviour of wallets: each kind was seen in a wallet that people use.

A fault replaces what the service does with one request. `when` in a fault is seconds, or None
for "until `Connection.release()`". Numbers in brackets are those of the project's list of what
NWC wallets really do.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Silent:
    """No reply. `executes`: the work is done all the same (the reply was lost). (4, 8)"""

    executes: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """Waits, then executes and answers. (4)"""

    when: float | None = None


@dataclass(frozen=True, slots=True)
class LateReply:
    """Executes at once, answers later. (11)"""

    when: float | None = None


@dataclass(frozen=True, slots=True)
class LyingSuccess:
    """Answers success with this preimage: without paying, or while the payment is in transit
    (`executes`). (2)"""

    preimage: str = ""
    executes: bool = False


@dataclass(frozen=True, slots=True)
class FailsThenSettles:
    """Answers with an error, then executes after all. (1)"""

    when: float | None = 0.0
    code: str = "PAYMENT_FAILED"


@dataclass(frozen=True, slots=True)
class ExecutesAfterExpiration:
    """Keeps the request until its `expiration` has passed, then executes and answers. With a
    `when`, that many seconds instead, and the tag is simply ignored. (4, 5)"""

    when: float | None = None


@dataclass(frozen=True, slots=True)
class PaysTwice:
    """Pays the same bolt11 twice and answers once. (6)"""


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers with this error, nothing executed. `shape`: which key holds the code. (9)"""

    code: str = "INTERNAL"
    message: str = "something went wrong"
    shape: Literal["code", "type"] = "code"
    has_result_type: bool = True


@dataclass(frozen=True, slots=True)
class MissingResultType:
    """The proper answer without its `result_type`. (3)"""


@dataclass(frozen=True, slots=True)
class DuplicateReplies:
    """The proper answer this many times, each an event of its own."""

    count: int = 2


@dataclass(frozen=True, slots=True)
class ForgedReply:
    """Somebody else answers success for the wallet, the wallet itself stays silent."""

    preimage: str = "00" * 32


@dataclass(frozen=True, slots=True)
class Garbage:
    """Properly encrypted text that is no answer."""

    text: str = "<html>502 Bad Gateway</html>"


Fault: TypeAlias = (
    Silent
    | Delay
    | LateReply
    | LyingSuccess
    | FailsThenSettles
    | ExecutesAfterExpiration
    | PaysTwice
    | Answers
    | MissingResultType
    | DuplicateReplies
    | ForgedReply
    | Garbage
)


@dataclass(slots=True)
class Script:
    """Faults to come, per method (`*` for every one), used up in the order they were added."""

    _faults: dict[str, deque[tuple[Fault, int | None]]] = field(default_factory=dict)

    def add(self, method: str, fault: Fault, times: int | None = 1) -> None:
        """`times` None: from now on, for ever."""
        self._faults.setdefault(method, deque()).append((fault, times))

    def clear(self) -> None:
        """Behave again."""
        self._faults.clear()

    def take(self, method: str) -> Fault | None:
        """The fault for this request, or None to behave."""
        for key in (method, "*"):
            queue = self._faults.get(key)
            if not queue:
                continue
            fault, times = queue[0]
            if times is not None:
                queue.popleft()
                if times > 1:
                    queue.appendleft((fault, times - 1))
            return fault
        return None


@dataclass(frozen=True, slots=True)
class Quirks:
    """Standing habits of a wallet's make (not faults of one request).

    `not_found_code`: INTERNAL instead of NOT_FOUND (3). `tells_state`: False leaves `state` out.
    `leaks_preimage`: look-up returns the preimage of unpaid incoming invoices (3).
    `settles_failed`: `settled_at` on failed outgoing payments, preimage all zeros (3).
    `error_shape`: which key holds an error's code (9). `dedupes`: ignores a second delivery of
    one event (10; False: pays again, 6). `honours_expiration`: drops requests that are too old (4).
    `refuses_scheme`: what an encryption it lacks gets, an error or silence (NIP-47 on the wire).
    `purges_expired`: expired unpaid invoices are not found any more. `forced_expiry_s` and
    `forced_amount_msat`: what `make_invoice` uses whatever was asked.
    """

    not_found_code: str = "NOT_FOUND"
    not_found_has_result_type: bool = True
    tells_state: bool = True
    leaks_preimage: bool = False
    settles_failed: bool = False
    error_shape: Literal["code", "type"] = "code"
    dedupes: bool = True
    honours_expiration: bool = True
    refuses_scheme: Literal["error", "silence"] = "error"
    purges_expired: bool = False
    forced_expiry_s: int | None = None
    forced_amount_msat: int | None = None


HONEST = Quirks()
LNBITS_LIKE = Quirks(
    not_found_code="INTERNAL",
    tells_state=False,
    leaks_preimage=True,
    settles_failed=True,
    refuses_scheme="silence",
)
"""To be combined with nip04 only."""
