"""Where a server is, as the user wrote it."""

from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx2


def is_address(url: str) -> bool:
    """Whether this can be a server's: what follows would fail at the first request, each in its own way."""
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx2.URL(url).raw_host.decode().encode("idna")  # labels that are empty or too long
    except (ValueError, httpx2.InvalidURL):
        return False
    return is_web


def is_loopback(url: str) -> bool:
    """Whether it is on this machine."""
    host = httpx2.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def needs_certificates(url: str) -> bool:
    """Whether a server there, or a proxy on the way, may have a certificate to be checked. To read those that are
    trusted takes longer than all else that makes a client, so none are read where no TLS can be met."""
    return url.lower().startswith("https:") or not is_loopback(url)
