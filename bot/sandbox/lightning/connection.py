"""One NWC connection to a sandbox wallet: its keys, permissions, budget and misbehaviour."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Literal
from urllib.parse import quote

from bot.sandbox.lightning.faults import HONEST, Fault, Quirks, Script
from bot.sandbox.lightning.model import Payment
from bot.sandbox.lightning.wallet import SandboxWallet
from bot.sandbox.lightning.wire import Keys
from wallet.ports import Encryption

READ_METHODS = ("get_info", "get_balance", "lookup_invoice", "list_transactions")
RECEIVE_METHODS = (*READ_METHODS, "make_invoice")
SPEND_METHODS = (*RECEIVE_METHODS, "get_budget", "pay_invoice")
NOTIFICATIONS = ("payment_received", "payment_sent")


class Connection:
    """What a wallet's user made under "connect an app". The secret shows in `.uri` only.

    `methods` limits what it may do; `budget_msat` is the total it may spend (None: no limit).
    """

    def __init__(
        self,
        wallet: SandboxWallet,
        relay_urls: Iterable[str],
        *,
        methods: tuple[str, ...] = SPEND_METHODS,
        budget_msat: int | None = None,
        encryptions: tuple[Encryption, ...] = ("nip44_v2", "nip04"),
        notifications: tuple[str, ...] = NOTIFICATIONS,
        quirks: Quirks = HONEST,
        lud16: str | None = None,
    ) -> None:
        token = wallet.network.token_bytes
        self.wallet = wallet
        self.relay_urls = tuple(relay_urls)
        self.wallet_keys = Keys(token(32))
        self._client_secret = token(32)
        self.client_pubkey = Keys(self._client_secret).public_key
        self.methods = methods
        self.budget_msat = budget_msat
        self.encryptions = encryptions
        self.notifications = notifications
        self.quirks = quirks
        self.lud16 = lud16
        self.script = Script()
        self.revoked: Literal["no", "silence", "error"] = "no"
        self.requests: list[str] = []
        """Methods asked for so far, in order: what tests look at."""
        self._payments: list[Payment] = []
        self._spent_before_renewal_msat = 0
        self._gate = asyncio.Event()

    def __repr__(self) -> str:
        return f"Connection({self.wallet.name!r}, wallet_pubkey={self.wallet_pubkey})"

    @property
    def wallet_pubkey(self) -> str:
        """The key the wallet answers with: one for each connection, as NIP-47 advises."""
        return self.wallet_keys.public_key

    @property
    def uri(self) -> str:
        """`nostr+walletconnect://…` with the secret: give it to the app, never log it."""
        query = [f"relay={quote(url, safe='')}" for url in self.relay_urls]
        query.append(f"secret={self._client_secret.hex()}")
        if self.lud16:
            query.append(f"lud16={quote(self.lud16)}")
        return f"nostr+walletconnect://{self.wallet_pubkey}?{'&'.join(query)}"

    # --- budget ---------------------------------------------------------------------------------

    @property
    def spent_msat(self) -> int:
        """Settled or in flight over this connection since the budget renewed, fees included."""
        spent = sum(p.amount_msat + p.fees_msat for p in self._payments if p.state != "failed")
        return spent - self._spent_before_renewal_msat

    def record(self, payment: Payment) -> None:
        """This payment was made over this connection."""
        self._payments.append(payment)

    def renew_budget(self) -> None:
        """A new budget period begins."""
        self._spent_before_renewal_msat += self.spent_msat

    # --- misbehaviour ---------------------------------------------------------------------------

    def misbehave(self, method: str, fault: Fault, times: int | None = 1) -> None:
        """The next `times` requests of that method (`*`: any) meet the fault; None: for ever."""
        self.script.add(method, fault, times)

    def behave(self) -> None:
        """No more faults; what already waits goes on waiting."""
        self.script.clear()

    def release(self) -> None:
        """Let go of everything that waits without a time."""
        gate, self._gate = self._gate, asyncio.Event()
        gate.set()

    async def wait(self, when: float | None) -> None:
        """Seconds, or until `release()`."""
        if when is None:
            await self._gate.wait()
        else:
            await asyncio.sleep(when)

    def revoke(self, shown_as: Literal["silence", "error"] = "silence") -> None:
        """The user deleted the connection; most wallets just fall silent."""
        self.revoked = shown_as
