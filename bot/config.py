"""The configuration: one TOML file, overlaid by the environment, with every error told at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from billing.dunning import Policy
from billing.plans import Catalogue
from billing.rates import Bounds, RateRules
from bot.config_dunning import DunningSection, dunning_policy
from bot.config_input import (
    Problem,
    fill_secrets,
    overlay_environment,
    read_toml,
)
from bot.config_keys import Section
from bot.config_money import (
    CollectionSection,
    PayeeSection,
    PlanSection,
    RatesSection,
    RefundsSection,
    StripeSection,
)
from bot.config_relayhost import RelayHostSection
from bot.config_rules import build_plan, check, is_live
from bot.config_sections import (
    BotSection,
    HttpSection,
    LogsSection,
    RegistrationSection,
    SandboxSection,
    StoreSection,
    SubscriptionsSection,
)
from bot.nostr.keys import Keys
from bot.nostr.nip19 import parse_pubkey
from wallet import nwc_uri
from wallet.nwc_uri import NwcUri

PLAN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has one line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Config(Section):
    """A valid configuration. Secrets are `SecretStr`: they show in no repr and no message."""

    bot: BotSection
    store: StoreSection = Field(default_factory=StoreSection)
    http: HttpSection = Field(default_factory=HttpSection)
    stripe: StripeSection = Field(default_factory=StripeSection)
    payee: PayeeSection = Field(default_factory=PayeeSection)
    refunds: RefundsSection = Field(default_factory=RefundsSection)
    collection: CollectionSection = Field(default_factory=CollectionSection)
    rates: RatesSection = Field(default_factory=RatesSection)
    dunning: DunningSection = Field(default_factory=DunningSection)
    plans: dict[str, PlanSection] = Field(default_factory=dict)
    registration: RegistrationSection = Field(default_factory=RegistrationSection)
    subscriptions: SubscriptionsSection = Field(default_factory=SubscriptionsSection)
    relay_host: RelayHostSection = Field(default_factory=RelayHostSection)
    logs: LogsSection = Field(default_factory=LogsSection)
    sandbox: SandboxSection = Field(default_factory=SandboxSection)

    @property
    def data_dir(self) -> Path:
        """Where the database, the lock and the control socket lie; absolute."""
        return Path(self.bot.data_dir)

    @property
    def store_url(self) -> str:
        """`sqlite:///<absolute path>` or `postgresql://…`; may hold a password."""
        if self.store.url is not None:
            return self.store.url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'purser.sqlite'}"

    @property
    def livemode(self) -> bool:
        """Whether Stripe's key is a live one: real money."""
        return is_live(self.stripe)

    @property
    def keys(self) -> Keys:
        """The bot's own key pair."""
        assert self.bot.key is not None
        return Keys.parse(self.bot.key.get_secret_value())

    @property
    def vault_keys(self) -> tuple[bytes, ...]:
        """32 bytes each; the first encrypts, all decrypt."""
        return tuple(bytes.fromhex(key.get_secret_value()) for key in self.bot.vault_keys)

    @property
    def operator_pubkeys(self) -> tuple[str, ...]:
        """Hex, in the configuration's order."""
        return tuple(parse_pubkey(name) for name in self.bot.operators)

    @property
    def allowed_pubkeys(self) -> frozenset[str] | None:
        """Hex; None: everybody may register."""
        if self.registration.mode == "open":
            return None
        return frozenset(parse_pubkey(name) for name in self.registration.allow)

    @property
    def payee_uri(self) -> NwcUri | None:
        """The operator's own wallet; None where only cards are taken."""
        if self.payee.nwc is None:
            return None
        text = self.payee.nwc.get_secret_value()
        return nwc_uri.parse(text, allow_private=self.sandbox.allow_private)

    @property
    def relay_domain(self) -> str:
        """Hosted relays are `<name>.<this>`; empty where all share one relay (nip86)."""
        by_kind = {"zooid": self.relay_host.zooid.domain, "command": self.relay_host.command.domain}
        return by_kind.get(self.relay_host.kind) or ""

    def catalogue(self) -> Catalogue:
        """The plans as billing knows them."""
        return Catalogue(
            build_plan(plan_id, plan, self.stripe.currency) for plan_id, plan in self.plans.items()
        )

    def dunning_policy(self) -> Policy:
        """What happens to an invoice that is not paid, and when."""
        return dunning_policy(self.dunning)

    def rate_rules(self) -> RateRules:
        """The limits of a believable rate."""
        rates = self.rates
        return RateRules(
            quorum=rates.quorum,
            band=rates.band_percent / 100,
            max_age_s=rates.max_age_s,
            max_move=rates.max_move_percent / 100,
            move_window_s=rates.max_move_window_s,
            bounds={name: Bounds(*limits) for name, limits in rates.bounds.items()},
        )


def load_config(path: Path, env: Mapping[str, str]) -> Config:
    """Read, overlay, check. Raises `ConfigError` with every problem found.

    Relative paths in it are relative to the file.
    """
    raw, problems = read_toml(path)
    if problems:
        raise ConfigError(_lines(problems))
    base = path.absolute().parent
    problems = overlay_environment(raw, env)
    file_problems = fill_secrets(raw, base)
    problems += file_problems
    sections, found = _validate(raw)
    problems += found
    if bot := sections.get("bot"):
        data_dir = str((base / Path(bot.data_dir).expanduser()).absolute())
        sections["bot"] = bot.model_copy(update={"data_dir": data_dir})
    # What was said once is not said again as missing.
    said = {_secret_of(where) for where, _ in file_problems} | {where for where, _ in found}
    problems += [item for item in check(sections) if item[0] not in said]
    if problems:
        raise ConfigError(_lines(problems))
    return Config.model_construct(**sections)


def _validate(raw: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Each section by itself, so that a fault in one does not hide those of another."""
    problems: list[Problem] = []
    sections: dict[str, Any] = {}
    known = list(Config.model_fields)
    for name in raw:
        if name not in known:
            problems.append((name, _unknown("section", name, known)))
    for name, field in Config.model_fields.items():
        given = raw.get(name, {})
        if not isinstance(given, dict):
            problems.append((name, f"must be a table; write [{name}]"))
        elif name == "plans":
            plans, found = _validate_plans(given)
            problems += found
            sections[name] = plans
        else:
            model = field.annotation
            assert isinstance(model, type)
            assert issubclass(model, BaseModel)
            section, found = _validate_section(name, model, given)
            problems += found
            if section is not None:
                sections[name] = section
    return sections, problems


def _validate_plans(given: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    problems: list[Problem] = []
    plans: dict[str, Any] = {}
    for plan_id, table in given.items():
        where = f"plans.{plan_id}"
        if not PLAN_ID.fullmatch(plan_id):
            problems.append((where, "write 1 to 32 of a-z, 0-9 and - as the plan's id"))
        if not isinstance(table, dict):
            problems.append((where, f"must be a table; write [{where}]"))
            continue
        plan, found = _validate_section(where, PlanSection, table)
        problems += found
        if plan is not None:
            plans[plan_id] = plan
    return plans, problems


def _validate_section(
    where: str, model: type[BaseModel], given: dict[str, Any]
) -> tuple[BaseModel | None, list[Problem]]:
    try:
        return model.model_validate(given), []
    except ValidationError as error:
        problems = list(_explain(where, model, error))
        wrong = {str(detail["loc"][0]) for detail in error.errors(include_url=False)}
    # What is right in it still takes part in the rules, so that those speak now and not next time.
    right = {name: value for name, value in given.items() if name not in wrong}
    try:
        return model.model_validate(right), problems
    except ValidationError:
        return None, problems


def _explain(where: str, model: type[BaseModel], error: ValidationError) -> Iterator[Problem]:
    for detail in error.errors(include_input=False, include_url=False, include_context=False):
        path, owner, description = where, model, ""
        for part in detail["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
            field = owner.model_fields.get(part) if isinstance(part, str) else None
            if field is not None:
                description = field.description or description
                if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                    owner = field.annotation
        kind = detail["type"]
        if kind == "extra_forbidden":
            yield path, _unknown("key", str(detail["loc"][-1]), list(owner.model_fields))
        elif kind == "missing":
            yield path, f"is missing. {description}"
        elif kind == "too_short":
            yield path, f"is empty. {description}"
        elif kind == "string_pattern_mismatch":
            yield path, f"is written otherwise. {description}"
        else:
            message = detail["msg"].removeprefix("Value error, ")
            yield path, f"{message[:1].lower()}{message[1:]}. {description}".rstrip()


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"unknown {what}; {hint}"


def _secret_of(where: str) -> str:
    """`stripe.api_key_file` is about `stripe.api_key`, `bot.vault_key_files[0]` about its list."""
    plain = re.sub(r"\[\d+\]$", "", where)
    return plain.removesuffix("_file") if plain.endswith("_file") else f"{plain[:-6]}s"


def _lines(problems: list[Problem]) -> list[str]:
    return [f"{path}: {text}" for path, text in problems]
