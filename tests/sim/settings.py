"""The operator's settings in a seed: mostly the defaults, else one or some of the others."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import Final
from zoneinfo import ZoneInfo

from billing.dunning import Quiet
from billing.good_standing import StopPolicy
from billing.plan_changes import Provision

NAMES: Final = ("good_standing", "now_with_credit", "quiet_hours", "preflight", "send_invoice")
DEFAULT_SHARE: Final = 0.8
LOUD: Final = Quiet()
ZONES: Final = (
    ZoneInfo("Europe/Berlin"),
    ZoneInfo("America/Los_Angeles"),
    timezone(timedelta(hours=5, minutes=30)),
)
NIGHTS: Final = ((22, 8), (20, 12), (1, 6), (9, 17))
"""The hours of `quiet_from` and `quiet_until`, over midnight or within a day."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `bot.config` would have read; as it is by default."""

    names: tuple[str, ...] = ()
    provision: Provision = "paid"
    stop: StopPolicy = "period_end"
    quiet: Quiet = LOUD
    preflight: bool = False
    """By default the bot asks wallets too; a seed that does not is quicker."""
    days_until_due: int | None = None

    @property
    def email_domain(self) -> str | None:
        """Stripe sends invoices to addresses only."""
        return None if self.days_until_due is None else "tenants.example.com"


def of_seed(seed: int, forced: Collection[str] | None = None) -> Settings:
    """With dice of their own, so that all other fates of the seed stay as they are; `forced`: just
    these, the empty ones being the defaults."""
    dice = random.Random(f"{seed} settings")
    chosen = set() if forced is None else {*forced}
    if forced is None and dice.random() >= DEFAULT_SHARE:
        chosen = {*dice.sample(NAMES, dice.choice((1, 1, 1, 2, 2, 3)))}
    night = Quiet(*dice.choice(NIGHTS), dice.choice(ZONES))
    days = dice.choice((1, 7, 30))
    return Settings(
        names=tuple(name for name in NAMES if name in chosen),
        provision="good_standing" if "good_standing" in chosen else "paid",
        stop="now_with_credit" if "now_with_credit" in chosen else "period_end",
        quiet=night if "quiet_hours" in chosen else LOUD,
        preflight="preflight" in chosen,
        days_until_due=days if "send_invoice" in chosen else None,
    )
