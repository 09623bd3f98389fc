"""Connection URIs: what people paste, what strangers try, and what must never be shown."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wallet.nwc_uri import NwcUri, NwcUriError, parse, redact
from wallet.secp256k1 import xonly_pubkey

KEY = xonly_pubkey(b"\x05" * 32).hex()
SECRET = "06" * 32
RELAY = "wss://relay.example"
GOOD = f"nostr+walletconnect://{KEY}?relay={quote(RELAY, safe='')}&secret={SECRET}"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  <{GOOD}>\n",
        f"`{GOOD}`",
        GOOD.replace("nostr+wallet", "nostrwallet"),
        GOOD.replace("://", ":", 1),
        GOOD.replace("nostr+walletconnect://", "NOSTR+WalletConnect:"),
        GOOD.replace(quote(RELAY, safe=""), RELAY),
        GOOD.replace(KEY, KEY.upper()).replace(SECRET, SECRET.upper()),
        GOOD.replace("?", "/?"),
        GOOD + "&relay=wss://RELAY.example:443/",
        GOOD + f"&secret={SECRET}",
        GOOD + "&unknown=1&empty=",
    ],
)
def test_the_ways_it_is_written(text: str) -> None:
    uri = parse(text)
    assert uri == NwcUri(KEY, (RELAY,), SECRET)
    assert uri.client_pubkey == xonly_pubkey(b"\x06" * 32).hex()
    assert parse(uri.to_text()) == uri


def test_several_relays_and_an_address() -> None:
    more = (
        "&relay=wss%3A%2F%2Fb.example%2Fpath%3Fa%3D1&relay=wss://c.example:7447&lud16=a@b.example"
    )
    uri = parse(GOOD + more)
    assert uri.relays == (RELAY, "wss://b.example/path?a=1", "wss://c.example:7447")
    assert uri.lud16 == "a@b.example"
    assert parse(uri.to_text()) == uri
    assert parse(GOOD + "&lud16=nonsense").lud16 is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not start with"),
        ("https://example.com", "does not start with"),
        (GOOD + "a" * 5_000, "longer than"),
        (GOOD.replace(KEY, KEY[:-1]), "not 64 hex"),
        (GOOD.replace(KEY, "ff" * 32), "not a public key"),
        (GOOD.replace(SECRET, SECRET[:-2]), "cut off"),
        (GOOD.replace(SECRET, "00" * 32), "not a valid key"),
        (GOOD.replace(SECRET, "ff" * 32), "not a valid key"),
        (GOOD.replace(SECRET, "05" * 32), "wallet's own key"),
        (GOOD + "&secret=" + "07" * 32, "two different secrets"),
        (GOOD.split("?", maxsplit=1)[0], "no relay="),
        (f"nostr+walletconnect://{KEY}?relay={RELAY}", "no secret="),
        (GOOD + "".join(f"&relay=wss://r{n}.example" for n in range(3)), "more than 3"),
        (GOOD + "&relay=ws://r.example", "wss://"),
        (GOOD + "&relay=http://r.example", "wss://"),
        (GOOD + "&relay=wss://user:pw@r.example", "user"),
        (GOOD + "&relay=wss://r.example%23f", "fragment"),
        (GOOD + "&relay=wss://", "no valid host"),
        (GOOD + "&relay=wss://r.example:0", "no valid host or port"),
        (GOOD + "&relay=wss://r.example:99999", "not a URL"),
        (GOOD + "&relay=wss://%5B::1", "not a URL"),
        (GOOD + "&relay=wss://r..example", "no valid host"),
        (GOOD + "&relay=wss://r%20x.example", "characters"),
        (GOOD + "&relay=wss://r%0A.example", "characters"),
        (GOOD + "&relay=wss://\u00e4.example", "characters"),
        (GOOD + "&relay=wss://r.example/" + "a" * 250, "longer than 256"),
        (GOOD + "&a=1" * 30, "cannot be read"),
        (GOOD + "&relay=%ff", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_words(text: str, words: str) -> None:
    with pytest.raises(NwcUriError, match=words) as caught:
        parse(text)
    assert SECRET not in str(caught.value)


def test_loopback_relays_only_where_allowed() -> None:
    text = GOOD.replace(quote(RELAY, safe=""), "ws://127.0.0.1:7000")
    assert parse(text, allow_private=True).relays == ("ws://127.0.0.1:7000",)
    with pytest.raises(NwcUriError):
        parse(text)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=200)
    | st.builds(lambda a, b: f"nostr+walletconnect:{a}?{b}", st.text(), st.text())
    | st.builds(lambda value: f"{GOOD}&relay={value}", st.text())
)
def test_any_text_is_a_connection_or_an_error(text: str) -> None:
    try:
        uri = parse(text)
    except NwcUriError as error:
        assert SECRET not in str(error)
    else:
        assert parse(uri.to_text()) == uri


def test_secret_shows_nowhere_but_in_the_stored_text() -> None:
    uri = parse(GOOD)
    assert SECRET not in repr(uri)
    assert SECRET not in uri.masked()
    assert uri.masked() == f"nostr+walletconnect://{KEY[:8]}…{KEY[-4:]} (relay.example)"


@pytest.mark.parametrize(
    "text",
    [
        f"wallet {GOOD} please",
        f"wallet {quote(GOOD, safe='')} please",
        f"wallet {GOOD.upper()} please",
        f"broken over lines: nostr+walletconnect://{KEY}?relay=x\n&secret={SECRET}",
        f'{{"secret": "{SECRET}"}}',
        f"secret%3D{SECRET}",
        f"secret = {SECRET[:40]}",
        f"my Secret:{SECRET}",
    ],
)
def test_redaction_leaves_no_secret(text: str) -> None:
    shown = redact(text)
    assert SECRET[:32].lower() not in shown.lower()
    assert "[redacted]" in shown


def test_redaction_of_private_keys_and_of_nothing() -> None:
    assert redact("nsec1" + "q" * 58) == "nsec1[redacted]"
    harmless = f"pay lnbc1... for {KEY}; the secret is safe"
    assert redact(harmless) == harmless
