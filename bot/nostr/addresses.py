"""Which network addresses an untrusted URL may lead to."""

from __future__ import annotations

import ipaddress
from typing import Final

# Spelled out because `ipaddress.is_private` and `is_global` misjudge several of them and change
# between Python versions. Source: the IANA special-purpose registries (RFC 6890 and its updates).
_REFUSED_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",  # cloud metadata services live here
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Everything outside global unicast is refused as a whole: ::/96, 64:ff9b::/96, 64:ff9b:1::/48,
# 100::/64, fc00::/7, fe80::/10, fec0::/10, ff00::/8 and what is not assigned yet.
_UNICAST_V6: Final = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    # 2002::/16 and 2001::/32 carry an IPv4 address of the sender's choosing.
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


def is_public(address: str) -> bool:
    """True for an IPv4 or IPv6 address that an untrusted URL may be connected to.

    An IPv4 address inside an IPv6 one (::ffff:0:0/96) is judged as the former. Text that is no
    address is not public.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            inside = parsed in _UNICAST_V6
            return inside and not any(parsed in network for network in _REFUSED_V6)
        parsed = parsed.ipv4_mapped
    return not any(parsed in network for network in _REFUSED_V4)
