"""Converts money: minor units and decimals per currency, fiat and msat, text for people.

Everything is Decimal or int; a float never touches an amount. Minor units are those of *Stripe's*
API, which differ from ISO 4217 in the places named here (docs.stripe.com/currencies).
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, localcontext
from typing import Final

from billing.errors import ConfigurationWrong
from wallet.units import MSAT_PER_BTC, MSAT_PER_SAT, format_sats, sat_to_msat

__all__ = [
    "exponent",
    "fiat_to_msat",
    "format_fiat",
    "format_sats",
    "from_decimal",
    "granularity_minor",
    "minimum_charge_minor",
    "msat_to_minor",
    "normalise_currency",
    "to_decimal",
]

MAX_AMOUNT_MINOR: Final = 99_999_999
"""Stripe takes eight digits for a charge in most currencies: more is a slip, not a price."""


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ZERO_DECIMAL: Final = _codes("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf")
_THREE_DECIMAL: Final = _codes("bhd jod kwd omr tnd")
_TWO_DECIMAL: Final = _codes(
    "aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp byn bzd cad "
    "cdf chf cny cop crc cve czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl "
    "htg huf idr ils inr isk jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop "
    "mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar "
    "sbd scr sek sgd shp sle sos srd std szl thb tjs top try ttd twd tzs uah usd uyu uzs wst xcd "
    "yer zar zmw"
)
"""UGX is missing on purpose: Stripe's pages list it both as zero-decimal and as two-decimal, and
being wrong would be a factor of 100 (M12)."""

_GRANULARITY: Final = {"isk": 100, **dict.fromkeys(_THREE_DECIMAL, 10)}
"""ISK has no fraction but is passed with two zeros; three-decimal amounts must end in 0."""

_MINIMUM_CHARGE: Final = {
    "aed": 200,
    "aud": 50,
    "bgn": 100,
    "brl": 50,
    "cad": 50,
    "chf": 50,
    "czk": 1500,
    "dkk": 250,
    "eur": 50,
    "gbp": 30,
    "hkd": 400,
    "huf": 17500,
    "inr": 50,
    "jpy": 50,
    "mxn": 1000,
    "myr": 200,
    "nok": 300,
    "nzd": 50,
    "pln": 200,
    "ron": 200,
    "sek": 300,
    "sgd": 50,
    "thb": 1000,
    "usd": 50,
}
"""docs.stripe.com/currencies#minimum-and-maximum-charge-amounts, in minor units. For a currency
not listed Stripe converts to the account's settlement currency, which we cannot know: see
`minimum_charge_minor`."""

_SYMBOLS: Final = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}
"""Only symbols that name one currency to most readers; everything else says its code."""

_EXACT: Final = Context(prec=60)
"""Enough digits that no product or quotient here is rounded before we round it ourselves."""


def normalise_currency(currency: str) -> str:
    """The lower-case code Stripe uses; `ConfigurationWrong` for one we cannot count in."""
    code = currency.strip().lower()
    if code in _TWO_DECIMAL or code in _ZERO_DECIMAL or code in _THREE_DECIMAL:
        return code
    raise ConfigurationWrong(currency, "is not a currency that can be billed in")


def exponent(currency: str) -> int:
    """How many decimal digits Stripe's minor unit of this currency has: 0, 2 or 3."""
    code = normalise_currency(currency)
    if code in _ZERO_DECIMAL:
        return 0
    return 3 if code in _THREE_DECIMAL else 2


def granularity_minor(currency: str) -> int:
    """Amounts must be a multiple of this many minor units (1 for most)."""
    return _GRANULARITY.get(normalise_currency(currency), 1)


def minimum_charge_minor(currency: str) -> int:
    """The least that Stripe charges; an invoice below it turns paid by itself (facts/stripe.md).

    Where Stripe publishes no figure, one whole unit with a fraction, or 50 without.
    """
    code = normalise_currency(currency)
    return _MINIMUM_CHARGE.get(code, 50 if exponent(code) == 0 else 10 ** exponent(code))


def to_decimal(amount_minor: int, currency: str) -> Decimal:
    """Minor units → units: 400 usd → 4.00, 500 jpy → 500, 5120 kwd → 5.120."""
    return Decimal(amount_minor).scaleb(-exponent(currency), context=_EXACT)


def from_decimal(amount: Decimal, currency: str) -> int:
    """Units → minor units, exactly; `ConfigurationWrong` when the currency cannot express it."""
    if not amount.is_finite():
        raise ConfigurationWrong(currency, "an amount must be a finite number")
    minor = amount.scaleb(exponent(currency), context=_EXACT)
    whole = int(minor)
    if minor != whole or whole % granularity_minor(currency):
        raise ConfigurationWrong(currency, f"{amount} cannot be charged in this currency")
    return whole


def format_fiat(amount_minor: int, currency: str) -> str:
    """For people: `$4.00`, `-€0.50`, `¥500`, `4.00 CHF`, `5.120 KWD`."""
    code = normalise_currency(currency)
    digits = 0 if code == "isk" and amount_minor % 100 == 0 else exponent(code)
    text = f"{abs(to_decimal(amount_minor, code)):,.{digits}f}"
    sign = "-" if amount_minor < 0 else ""
    symbol = _SYMBOLS.get(code)
    return f"{sign}{symbol}{text}" if symbol else f"{sign}{text} {code.upper()}"


def fiat_to_msat(amount_minor: int, currency: str, price_per_btc: Decimal) -> int:
    """What a payment request must ask for, in msat; `price_per_btc` in units of `currency`.

    Rounded *up to a whole sat*: many wallets show, take or send whole sats only, and rounding down
    would leave the invoice short (M6: at least the amount).
    """
    if amount_minor <= 0:
        raise ValueError("only a positive amount can be asked for")
    _check_price(price_per_btc)
    with localcontext(_EXACT):
        sats = to_decimal(amount_minor, currency) * (MSAT_PER_BTC // MSAT_PER_SAT) / price_per_btc
        return sat_to_msat(int(sats.to_integral_value(ROUND_CEILING)))


def msat_to_minor(amount_msat: int, currency: str, price_per_btc: Decimal) -> int:
    """What these msat are worth in minor units, rounded *down*: credit never exceeds money."""
    if amount_msat < 0:
        raise ValueError("money that arrived is not negative")
    _check_price(price_per_btc)
    with localcontext(_EXACT):
        units = Decimal(amount_msat) * price_per_btc / MSAT_PER_BTC
        minor = units.scaleb(exponent(currency))
        return int(minor.to_integral_value(ROUND_FLOOR))


def _check_price(price_per_btc: Decimal) -> None:
    if not price_per_btc.is_finite() or price_per_btc <= 0:
        raise ValueError("a price is positive and finite")
