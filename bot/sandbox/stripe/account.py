"""The account itself."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj
from bot.sandbox.stripe.registry import Call, operation


@operation("GET", "/v1/account", "AccountRetrieveCurrentParams")
def retrieve(call: Call) -> Obj:
    """Who the key belongs to."""
    settings = call.world.settings
    return {
        "id": settings.account_id,
        "object": "account",
        "business_profile": None,
        "business_type": None,
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": None,
        "payouts_enabled": True,
        "settings": {
            "branding": {
                "icon": None,
                "logo": None,
                "primary_color": None,
                "secondary_color": None,
            },
            "card_payments": {
                "statement_descriptor_prefix": None,
                "statement_descriptor_prefix_kana": None,
                "statement_descriptor_prefix_kanji": None,
            },
            "dashboard": {"display_name": settings.account_name, "timezone": "Etc/UTC"},
            "payments": {
                "statement_descriptor": None,
                "statement_descriptor_kana": None,
                "statement_descriptor_kanji": None,
            },
        },
        "type": "standard",
    }
