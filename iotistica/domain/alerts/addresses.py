"""The addresses that messages may be sent to: those of the public internet, and networks that are allowed."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network

_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
"""Of networks of their own, where it is not known which bits are the IPv4 address."""
_COMPATIBLE: Final = IPv6Network("::/96")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks in a list separated by commas; a single address is a network. Raises ValueError."""
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def is_allowed(text: str, allowed: Sequence[Network]) -> bool:
    """Whether messages may go to an address as the resolver returns it.

    An IPv6 address that stands for one of IPv4 (mapped, compatible, 6to4, Teredo, NAT64) counts as that one too.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    embedded = _embedded(address) if isinstance(address, IPv6Address) else []
    if any(a in network for a in (address, *embedded) for network in allowed if a.version == network.version):
        return True
    if embedded:
        return all(_is_public(inner) for inner in embedded)
    return _is_public(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return (
        address.is_global
        and not (address.version == 6 and address in _LOCAL_NAT64)
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not getattr(address, "is_site_local", False)
    )


def _embedded(address: IPv6Address) -> list[IPv4Address]:
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address.teredo is not None:
        return list(address.teredo)
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    return []
