"""Makes a tenant's one customer at Stripe, and finds it again whatever was lost in between."""

from __future__ import annotations

from dataclasses import dataclass

from billing.model import Tenant
from billing.ports import StripeGateway
from billing.store import operations, tenants
from billing.unit import Runtime


@dataclass(slots=True)
class CustomerBook:
    """`email_domain`: of the synthetic addresses; nothing is mailed there."""

    rt: Runtime
    stripe: StripeGateway
    email_domain: str | None = None

    async def ensure(self, tenant: Tenant) -> Tenant:
        """The tenant with its customer. Raises the gateway's errors.

        Stripe is asked first: a reply may have been lost, or this database been restored from
        before its tenant came; a second customer would mean a second subscription (M11).
        """
        if tenant.customer_id is not None:
            return tenant
        found = await self.stripe.find_customer(tenant.pubkey)
        if found is None:
            async with self.rt.unit() as unit:
                operation = await operations.begin(
                    unit.tx, self.rt, "create_customer", tenant.pubkey
                )
            found = await self.stripe.create_customer(
                operation.id,
                pubkey=tenant.pubkey,
                name=tenant.name,
                email=self._email(tenant.pubkey),
            )
            async with self.rt.unit() as unit:
                await operations.finish(unit.tx, operation.id, found.id, now=unit.now)
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "tenants.set_customer", pubkey=tenant.pubkey, customer_id=found.id
            )
            await unit.record(
                "tenant.customer", tenant=tenant.pubkey, subject=tenant.pubkey, customer=found.id
            )
            fresh = await tenants.get(unit.tx, tenant.pubkey)
        assert fresh is not None
        return fresh

    def _email(self, pubkey: str) -> str | None:
        return None if self.email_domain is None else f"{pubkey[:32]}@{self.email_domain}"
