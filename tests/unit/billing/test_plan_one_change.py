"""A relay has one change of plan before it, and none is lost to another in silence (K11)."""

from __future__ import annotations

from tests.unit.billing.test_plan_changes import DAY_S, ask, changes, confirm, have_relay
from tests.world import World


async def live(world: World) -> list[tuple[str, str]]:
    states = ("confirmed", "ordered", "scheduled")
    return [(c.to_plan, c.state.value) for c in await changes(world) if c.state.value in states]


async def test_k11_a_scheduled_change_is_replaced_only_by_a_word_that_names_it(
    world: World,
) -> None:
    """K11: a scheduled change was overwritten by a second one."""
    await have_relay(world, "pro")
    _, first = await ask(world, "basic")
    assert (await confirm(world, first["code"]))[0] == "plan_scheduled"
    assert await live(world) == [("basic", "scheduled")]
    await ask(world, "basic")
    assert await live(world) == [("basic", "scheduled")], "asked again, it is told and kept"
    before = len(await world.messages())
    _, second = await ask(world, "free")
    _, said = (await world.messages())[before]
    assert said["replaces"] == "Basic"
    assert await live(world) == [("basic", "scheduled")], "an offer replaces nothing"
    await confirm(world, second["code"])
    assert await live(world) == [("free", "scheduled")]
    await ask(world, "pro")
    assert await live(world) == [], "its own plan takes the change back"
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert [i.total_minor for i in await world.invoices()] == [900, 900]
