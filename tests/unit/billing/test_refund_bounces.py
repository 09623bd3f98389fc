"""C18: a card refund that Stripe called succeeded comes back weeks later, and the books say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing.errors import StripeUnavailable
from billing.ledger import Account, Balances
from billing.refund_desk import RefundRefused
from billing.refunds import RefundState, RefundWay
from billing.store import ledger
from tests.unit.billing.test_c18_refunds import alarms, is_true, paid_by_card, refund_of
from tests.unit.billing.test_restored_backup import backup
from tests.world import ALICE, World


async def booked(world: World, account: Account) -> int:
    async with world.rt.unit() as unit:
        return ledger_sum(await ledger.sums(unit.tx, "ledger.sums"), account)


def ledger_sum(sums: dict[str, Balances], account: Account) -> int:
    return sums[ALICE].get(account, "usd")


async def told(world: World) -> list[str]:
    kinds = ("refunded", "money_back", "refund_bounced")
    return [kind for kind, _ in await world.messages() if kind in kinds]


async def bounced(world: World, amount_minor: int | None = None) -> str:
    """A paid invoice whose refund was noted and told, and then came back."""
    invoice_id = await paid_by_card(world)
    await world.refund_desk.refund(invoice_id, amount_minor, None, "as asked")
    await world.settle_down()
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.DONE
    assert refund.noted_at is not None
    assert refund.stripe_id is not None
    await world.pass_time(3600, step=600)
    world.stripe.settle_refund(refund.stripe_id, "failed")
    await world.settle_down()
    return invoice_id


async def test_a_card_refund_that_comes_back_is_turned_round_once_and_told(world: World) -> None:
    invoice_id = await bounced(world)
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.FAILED
    assert refund.stripe_id is not None
    assert await booked(world, Account.REFUNDS) == 0
    assert await booked(world, Account.CARD) == 400
    (alarm,) = [text for text in await alarms(world) if "came back" in text]
    assert f"purser refund {invoice_id} --to lightning" in alarm
    assert await told(world) == ["refunded", "refund_bounced"]
    # Stripe tells it again, under another name.
    world.stripe.settle_refund(refund.stripe_id, "canceled")
    await world.settle_down()
    assert await told(world) == ["refunded", "refund_bounced"]
    assert await booked(world, Account.CARD) == 400
    await is_true(world)


@pytest.mark.parametrize("status", ["failed", "canceled"])
async def test_c18_a_card_refund_that_fails_while_it_is_pending_was_never_given(
    world: World, status: str
) -> None:
    """A note, an entry or a "refunded" for money that never left would have to be taken back."""
    invoice_id = await paid_by_card(world)
    world.stripe.refund_status = "pending"
    await world.refund_desk.refund(invoice_id, None, None, "as asked")
    await world.settle_down()
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.IN_FLIGHT
    assert refund.stripe_id is not None
    world.stripe.settle_refund(refund.stripe_id, status)
    await world.settle_down()
    await world.pass_time(3600, step=600)
    assert (await refund_of(world, invoice_id)).state is RefundState.FAILED
    assert not world.stripe.notes
    async with world.rt.unit() as unit:
        assert not [row for row in await ledger.rows(unit.tx) if refund.id in row.entry]
    assert await booked(world, Account.REFUNDS) == 0
    assert await booked(world, Account.CARD) == 400
    assert await told(world) == []
    (alarm,) = [text for text in await alarms(world) if refund.id in text]
    assert "did not happen" in alarm
    # The whole of it can be ordered again.
    world.stripe.refund_status = "succeeded"
    await world.refund_desk.refund(invoice_id, None, None, "once more", again=True)
    await world.settle_down()
    assert await told(world) == ["refunded"]
    assert await booked(world, Account.REFUNDS) == 400
    await is_true(world)


@pytest.mark.parametrize("way", [RefundWay.LIGHTNING, RefundWay.CARD])
async def test_what_came_back_can_be_given_another_way_without_a_second_note(
    world: World, way: RefundWay
) -> None:
    """Stripe voids no credit note of a paid invoice: the one that stands counts for this one."""
    invoice_id = await bounced(world)
    await world.connect_wallet()
    await world.settle_down()
    again = await world.refund_desk.refund(invoice_id, None, way, "another way")
    assert again.amount_minor == 400
    await world.pass_time(120, step=10)
    assert (await refund_of(world, invoice_id)).state is RefundState.DONE
    assert len(world.stripe.notes) == 1
    assert not [text for text in await alarms(world) if "credit note for it" in text]
    assert await booked(world, Account.REFUNDS) == 400
    with pytest.raises(RefundRefused, match="nothing of it is left"):
        await world.refund_desk.refund(invoice_id, None, way, "once more")
    await is_true(world)


async def test_m1_a_restored_backup_takes_one_without_a_note_up_as_such(
    world: World, tmp_path: Path
) -> None:
    invoice_id = await bounced(world)
    await world.connect_wallet()
    await world.settle_down()
    engine = await backup(world, tmp_path / "old.sqlite")
    world.refund_wallets.mute_lookups = True
    world.refund_wallets.behaviour = "pays_silently"
    ordered = await world.refund_desk.refund(invoice_id, None, RefundWay.LIGHTNING, "another way")
    await world.settle_down()
    assert len(world.refund_wallets.written) == 1
    world.refund_wallets.mute_lookups = False
    again = await world.reborn(engine, rebuild=True)
    await again.settle_down()
    refund = await refund_of(again, invoice_id)
    assert (refund.id, refund.state) == (ordered.id, RefundState.DONE)
    assert len(again.stripe.notes) == 1
    assert not [text for text in await alarms(again) if "credit note for it" in text]
    await is_true(again)
    await engine.close()


async def test_to_the_balance_it_goes_as_credit_where_stripe_has_no_room_for_a_note(
    world: World,
) -> None:
    invoice_id = await bounced(world)
    with pytest.raises(RefundRefused, match="purser credit"):
        await world.refund_desk.refund(invoice_id, None, RefundWay.BALANCE, "as credit")
    await world.refund_desk.credit(ALICE, 400, "usd", "as credit")
    await world.settle_down()
    (customer,) = world.stripe.books.customers.values()
    assert customer.balance_minor == -400
    await is_true(world)


async def test_after_a_part_came_back_only_what_replaces_it_goes_without_a_note(
    world: World,
) -> None:
    invoice_id = await bounced(world, 150)
    await world.refund_desk.refund(invoice_id, 150, None, "in its place", again=True)
    await world.settle_down()
    assert len(world.stripe.notes) == 1
    await world.refund_desk.refund(invoice_id, 250, RefundWay.BALANCE, "the rest")
    await world.settle_down()
    assert sorted(note.amount_minor for note in world.stripe.notes.values()) == [150, 250]
    with pytest.raises(RefundRefused, match="nothing of it is left"):
        await world.refund_desk.refund(invoice_id, None, None, "once more")
    await is_true(world)


async def test_one_that_comes_back_before_its_note_is_written_gets_none(world: World) -> None:
    invoice_id = await paid_by_card(world)

    def down(name: str, arguments: object) -> None:
        if name == "create_credit_note":
            raise StripeUnavailable(invoice_id, "down")

    world.stripe.before = down
    await world.refund_desk.refund(invoice_id, None, None, "as asked")
    await world.settle_down()
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.DONE
    assert refund.stripe_id is not None
    world.stripe.settle_refund(refund.stripe_id, "failed")
    await world.settle_down()
    world.stripe.before = lambda name, arguments: None
    await world.pass_time(1800, step=300)
    assert not world.stripe.notes
    again = await world.refund_desk.refund(invoice_id, None, None, "once more", again=True)
    assert again.note_operation_id is not None
    await world.settle_down()
    assert len(world.stripe.notes) == 1
    await is_true(world)


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_v2_a_refund_by_hand_that_comes_back_is_turned_round_and_told(
    world: World, is_deleted: bool
) -> None:
    """Also where its tenant's customer was deleted meanwhile."""
    invoice_id = await paid_by_card(world)
    made = world.stripe.made_in_dashboard(invoice_id, 150)
    await world.settle_down()
    assert await booked(world, Account.CARD) == 250
    if is_deleted:
        (customer,) = world.stripe.books.customers.values()
        customer.deleted = True
        world.stripe.books.tell("customer.deleted", customer)
        await world.settle_down()
        assert [text for text in await alarms(world) if "was deleted at Stripe" in text]
        assert await told(world) == ["money_back"]
    world.stripe.settle_refund(made.id, "failed")
    await world.settle_down()
    world.stripe.settle_refund(made.id, "canceled")
    await world.settle_down()
    assert await booked(world, Account.CARD) == 400
    assert await told(world) == ["money_back", "refund_bounced"]
    assert [
        text for text in await alarms(world) if f"refund {made.id}" in text and "is failed" in text
    ]
    rest = await world.refund_desk.refund(invoice_id, None, None, "all of it")
    assert rest.amount_minor == 400
    await is_true(world)


async def test_v2_a_refund_by_hand_that_never_arrived_is_not_told_to_the_tenant(
    world: World,
) -> None:
    invoice_id = await paid_by_card(world)
    world.stripe.refund_status = "pending"
    made = world.stripe.made_in_dashboard(invoice_id, 150)
    await world.settle_down()
    world.stripe.settle_refund(made.id, "failed")
    await world.settle_down()
    assert await told(world) == []
    assert await booked(world, Account.CARD) == 400
    assert [text for text in await alarms(world) if "did not reach the card" in text]
    await is_true(world)
