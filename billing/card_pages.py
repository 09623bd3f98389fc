"""The command `card`: a page at Stripe where the tenant leaves a card, made when Stripe answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import structlog

from billing.card_model import CardRequest
from billing.customers import CustomerBook
from billing.desk import Command, Desk, answer
from billing.errors import PurserError, StripeMissing, StripeRejected
from billing.model import RelayState, Tenant
from billing.parallel import by_group
from billing.ports import StripeGateway
from billing.store import tenants
from billing.store.operations import NEW_KEY_AFTER_TRIES
from billing.unit import Runtime, Unit
from billing.views import CardPage

log = structlog.stdlib.get_logger("purser")

PageKind: TypeAlias = Literal["portal", "checkout"]
CardPages: TypeAlias = Literal["auto", "portal", "checkout"]
"""Which page a tenant gets; auto: the portal, and Checkout where the operator set up none."""

BATCH: Final = 10
BACK_OFF_S: Final = (5, 15, 60, 300, 900, 900)
"""Who asked is waiting: after some 35 minutes they hear that it did not work."""
PORTAL_LASTS_S: Final = 300
"""Stripe says only that an unvisited portal link is short-lived; five minutes is what it was seen
to be, and who is late asks again."""


@dataclass(slots=True)
class CardCommands:
    """`card`. What needs the network is queued."""

    desk: Desk
    takes_cards: bool
    pages: CardPages = "auto"

    async def card(self, command: Command) -> None:
        """Ask for a page; a second time, while one is on its way, changes nothing."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            if not self.takes_cards:
                await answer(unit, command, "no_cards")
                return
            tenant = await tenants.get(unit.tx, command.sender)
            if tenant is None or not await _has_business(unit, tenant):
                # Nobody can make Stripe customers by writing to us.
                await answer(unit, command, "no_tenant")
                return
            rt = self.desk.rt
            await unit.tx.execute(
                "cards.insert_page",
                id=rt.ids.new("page"),
                tenant=command.sender,
                kind="checkout" if self.pages == "checkout" else "portal",
                operation_id=rt.ids.new("op"),
                now=unit.now,
            )
            await unit.record("card.page_wanted", tenant=command.sender)
            await answer(unit, command, "card_preparing")


async def _has_business(unit: Unit, tenant: Tenant) -> bool:
    relays = await tenants.relays_of(unit.tx, tenant.pubkey)
    has_relay = any(relay.state is not RelayState.ENDED for relay in relays)
    return tenant.customer_id is not None or has_relay


@dataclass(slots=True)
class CardPageMaker:
    """Makes the pages that were asked for; their addresses go to the tenant and nowhere else."""

    rt: Runtime
    stripe: StripeGateway
    customers: CustomerBook
    return_url: str
    pages: CardPages = "auto"

    async def run_once(self, now: int) -> int:
        """Returns how many were due."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(CardRequest, "cards.pages_due", now=now, count=BATCH)
        await by_group(due, lambda request: request.tenant, self._try)
        return len(due)

    async def _try(self, request: CardRequest) -> None:
        try:
            page = await self._make(request)
        except StripeRejected as error:
            is_portal = request.kind == "portal" and not isinstance(error, StripeMissing)
            if is_portal and self.pages == "auto":
                # No portal, or none in which a card can be changed: the 400 has no code.
                await self._again(request, "checkout", error.what)
            else:
                await self._failed(request, error)
            return
        except PurserError as error:
            await self._failed(request, error)
            return
        await self._send(request, page)

    async def _make(self, request: CardRequest) -> CardPage:
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, request.tenant)
        assert tenant is not None
        tenant = await self.customers.ensure(tenant)
        assert tenant.customer_id is not None
        make = self.stripe.portal_page if request.kind == "portal" else self.stripe.checkout_page
        return await make(
            request.operation_id, customer_id=tenant.customer_id, return_url=self.return_url
        )

    async def _send(self, request: CardRequest, page: CardPage) -> None:
        async with self.rt.unit() as unit:
            if not await unit.tx.execute(
                "cards.page_sent", id=request.id, session_id=page.session_id
            ):
                return
            await unit.record(
                "card.page_sent", tenant=request.tenant, subject=request.id, page=request.kind
            )
            await unit.say(
                f"card_page:{request.id}",
                request.tenant,
                "card_page",
                url=page.url,
                expires_at=page.expires_at,
                lasts_s=None if page.expires_at is not None else PORTAL_LASTS_S,
            )

    async def _again(self, request: CardRequest, kind: PageKind, why: str) -> None:
        async with self.rt.unit() as unit:
            await self._tried(unit, request, kind=kind, new_key=True, next_at=unit.now)
            await unit.record(
                "card.page_other", tenant=request.tenant, subject=request.id, page=kind, why=why
            )

    async def _failed(self, request: CardRequest, error: PurserError) -> None:
        log.warning("card.page_failed", subject=request.id, error=error.what)
        async with self.rt.unit() as unit:
            if request.attempts < len(BACK_OFF_S):
                # A page made twice harms nobody, a key that replays a 500 would (M11).
                await self._tried(
                    unit,
                    request,
                    kind=request.kind,
                    new_key=request.attempts + 1 >= NEW_KEY_AFTER_TRIES,
                    next_at=unit.now + BACK_OFF_S[request.attempts],
                )
                return
            await self._tried(unit, request, kind=request.kind, new_key=False, next_at=None)
            await unit.say(f"card_page:{request.id}", request.tenant, "card_page_failed")
            await self.rt.alarm(
                unit,
                f"card_page:{request.tenant}:{unit.now // 86400}",
                f"No page to leave a card could be made for tenant {request.tenant[:16]}…: "
                f"{error.what[:160]}. They were told to ask again later.",
            )

    async def _tried(
        self, unit: Unit, request: CardRequest, *, kind: str, new_key: bool, next_at: int | None
    ) -> None:
        await unit.tx.execute(
            "cards.page_tried",
            id=request.id,
            kind=kind,
            operation_id=self.rt.ids.new("op") if new_key else request.operation_id,
            attempts=request.attempts + 1,
            next_at=next_at,
            state="wanted" if next_at is not None else "failed",
        )
