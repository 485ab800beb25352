"""Which addresses a target may have; asked when one is saved and at every connection."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading

from django.conf import settings

from monitors.pg.errors import Unreachable

RESOLVE_SECONDS = 2.0
MAX_HOST = 255
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?|[0-9A-Fa-f:.]+")
METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200")
)
LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def allowed_address(host: str) -> str:
    """Return the address to connect to; raises Unreachable with what is wrong.

    Every address that the name resolves to must be allowed, and the one
    returned is given to libpq as it is: a name can't change its mind between
    this check and the connection.
    """
    addresses = resolve(host)
    if not addresses:
        message = "The host name does not resolve."
        raise Unreachable(message)
    for address in addresses:
        refuse(address)
    return str(addresses[0])


def check_host(host: str) -> None:
    """Raise Unreachable for a host that may never be connected to.

    A name that does not resolve here passes: workers may have another resolver,
    and every connection asks `allowed_address` again.
    """
    for address in resolve(host):
        refuse(address)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine; False for what is no host at all."""
    try:
        addresses = resolve(host)
    except Unreachable:
        return False
    return bool(addresses) and all(plain(address).is_loopback for address in addresses)


def resolve(host: str) -> list[IPAddress]:
    """Return the addresses of a host, [] where the name is not known within 2 s.

    Raises Unreachable for what is not one host: a socket's path, a list.
    """
    if not HOST.fullmatch(host) or len(host) > MAX_HOST:
        message = "Give one host name or address: no path, no list, no brackets."
        raise Unreachable(message)
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        return look_up(host)


def look_up(host: str) -> list[IPAddress]:
    """Ask the system's resolver, which knows no time limit, in a thread that may be left."""
    found: list[IPAddress] = []

    def ask() -> None:
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found.extend(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries)

    thread = threading.Thread(target=ask, name="resolver", daemon=True)
    thread.start()
    thread.join(RESOLVE_SECONDS)
    name = f".{host.rstrip('.').lower()}"
    if not found and name.endswith(".localhost"):
        return list(LOOPBACK)  # that is what it means, known to the resolver or not
    return list(dict.fromkeys(found))


def plain(address: IPAddress) -> IPAddress:
    """Return the IPv4 address inside an IPv6 one that only wraps it."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def refuse(address: IPAddress) -> None:
    """Raise Unreachable for an address that the host policy does not allow."""
    address = plain(address)
    if any(address in ipaddress.ip_network(text) for text in settings.ALLOWED_TARGET_NETWORKS):
        return
    kind = kind_of(address)
    if kind == "a loopback address" and settings.ALLOW_LOOPBACK_TARGETS:
        return
    if kind:
        message = (
            f"{address} is {kind}: not allowed for a target here (HOWDAH_ALLOWED_TARGET_NETWORKS)."
        )
        raise Unreachable(message)


def kind_of(address: IPAddress) -> str:
    """Return what is special about an address, '' for an ordinary one."""
    if address in METADATA:
        return "a cloud's metadata service"
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        return "no address of a server"
    return ""
