"""Currencies as Stripe counts them: minor units, minimum charges, floored products."""

from __future__ import annotations

from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal

_ZERO = "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf"
_THREE = "bhd jod kwd omr tnd"
_TWO = (
    "usd eur gbp chf aud cad nzd sgd hkd sek nok dkk pln czk huf ron bgn brl mxn inr thb myr aed "
    "ils zar try php idr twd ars cop pen uah kes ngn egp mad sar qar isk"
)
ZERO_DECIMAL = frozenset(_ZERO.split())
THREE_DECIMAL = frozenset(_THREE.split())
TWO_DECIMAL = frozenset(_TWO.split())
KNOWN = ZERO_DECIMAL | THREE_DECIMAL | TWO_DECIMAL

# docs.stripe.com/currencies, minimum charge amounts, in minor units.
_MINIMUM = {
    "usd": 50, "eur": 50, "gbp": 30, "chf": 50, "aud": 50, "cad": 50, "nzd": 50, "sgd": 50,
    "hkd": 400, "sek": 300, "nok": 300, "dkk": 250, "pln": 200, "czk": 1500, "huf": 17500,
    "ron": 200, "bgn": 100, "brl": 50, "mxn": 1000, "inr": 50, "thb": 1000, "myr": 200,
    "aed": 200, "jpy": 50,
}  # fmt: skip
_DEFAULT_MINIMUM = 50


def minimum_charge(currency: str) -> int:
    """Below this an invoice is not charged: it turns paid, the amount moves to the balance."""
    return _MINIMUM.get(currency, _DEFAULT_MINIMUM)


def times(unit_decimal: str, quantity: int) -> int:
    """A full line: half up to the minor unit, as Stripe rounds unit_amount_decimal."""
    exact = Decimal(unit_decimal) * quantity
    return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def share(unit_decimal: str, quantity: int, left_s: int, whole_s: int) -> int:
    """A proration: the part of a full line for `left_s` of `whole_s`, floored (recorded)."""
    exact = Decimal(unit_decimal) * quantity * left_s / whole_s
    return int(exact.to_integral_value(rounding=ROUND_FLOOR))
