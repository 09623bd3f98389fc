"""The section of the configuration that says what happens to an invoice that is not paid."""

from __future__ import annotations

import re
from datetime import timedelta, timezone, tzinfo
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field

from billing.dunning import Action, Policy, Quiet, Step
from bot.config_keys import Section, setting, split_commas

DunningAction = Literal["notice", "due", "remind", "limit", "stop", "end"]
OFFSET: Final = re.compile(r"([+-])(\d{2}):(\d{2})")


class DunningStep(Section):
    """One step of the timeline."""

    day: int = Field(description="Days after the invoice was due; negative is before.", ge=-60)
    action: DunningAction = Field(description="What the step does.")


class DunningSection(Section):
    """[dunning]: what happens to an invoice that is not paid, and when."""

    steps: list[DunningStep] = setting(
        "Steps in the order of their days; action is notice, due, remind, limit, stop or end.",
        [
            {"day": -7, "action": "notice"},
            {"day": 0, "action": "due"},
            {"day": 1, "action": "remind"},
            {"day": 3, "action": "remind"},
            {"day": 7, "action": "limit"},
            {"day": 10, "action": "stop"},
            {"day": 30, "action": "end"},
        ],
        min_length=1,
    )
    retry_nwc_days: Annotated[list[int], BeforeValidator(split_commas)] = setting(
        "Days after an invoice was made on which a wallet that did not pay it is tried again.",
        [1, 3],
    )
    quiet_from: int = setting(
        "From this full hour on nothing is said and nothing taken, until quiet_until; the same"
        " hour twice: no quiet hours.",
        0,
        ge=0,
        le=23,
    )
    quiet_until: int = setting("The full hour at which the quiet hours end.", 0, ge=0, le=23)
    quiet_zone: str = setting(
        'Where those hours are: a time zone as "Europe/Berlin", or an offset as "+01:00".', "UTC"
    )
    promise_max_days: int = setting(
        "How many days a tenant may ask for, once an invoice; 0: none.", 7, ge=0, le=60
    )
    mass_failure_tenants: int = setting(
        "When automatic payments of so many tenants, and of half of those tried, fail within an"
        " hour, nobody is asked or dunned for an hour and operators are told.",
        5,
        ge=2,
    )
    restore: Literal["all", "each"] = setting(
        '"all": relays come back once all that is owed for them is paid; "each": once the invoice'
        " that took them is.",
        "all",
    )
    export_notice: str = setting(
        "What tenants read at the end about a copy of their data.",
        "For a copy of the data, write to the operator soon: it is not kept for ever.",
        max_length=400,
    )


def zone_of(text: str) -> tzinfo:
    """A time zone by name, or an offset from UTC. Raises `ValueError`."""
    match = OFFSET.fullmatch(text)
    if match is not None:
        sign = -1 if match[1] == "-" else 1
        hours, minutes = int(match[2]), int(match[3])
        if hours > 14 or minutes > 59:
            raise ValueError(f"{text} is no offset")
        return timezone(sign * timedelta(hours=hours, minutes=minutes))
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"{text} is no time zone known here") from error


def dunning_policy(section: DunningSection) -> Policy:
    """The timeline as billing knows it."""
    return Policy(
        steps=tuple(Step(step.day, Action(step.action)) for step in section.steps),
        quiet=Quiet(section.quiet_from, section.quiet_until, zone_of(section.quiet_zone)),
        promise_max_days=section.promise_max_days,
        restore=section.restore,
        export_notice=section.export_notice,
    )
