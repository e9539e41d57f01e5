"""Fetch the certificates of issuers that servers should send and do not, as browsers do (RFC 5280, 4.2.2.1)."""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from crawler.core.urls import Url, parse_url
from crawler.transport.tls.certificates import Certificate, is_self_issued, parse_issuer_urls, parse_pkcs7_certificates
from crawler.transport.tls.report import certificate_of

__all__ = ["MAX_ISSUER_BYTES", "IssuerStore"]

MAX_ISSUER_BYTES: Final = 64 * 1024
_MAX_URLS: Final = 1_000
_MAX_URLS_PER_CERTIFICATE: Final = 2
_FAILURE_SECONDS: Final = 60.0  # until a failed fetch is tried again

Fetch = Callable[[Url, float], Awaitable[bytes]]


class IssuerStore:
    """Fetches issuers' certificates, and keeps them by URL.

    A certificate that is fetched is not trusted: it only completes a chain that ends at a trusted root. So one that
    could count as a root itself, because its issuer has its own name, is refused.

    Args:
        fetch: Gets the body of an http URL, of `MAX_ISSUER_BYTES` at most, until a deadline (loop time). It raises
            an exception if the address is blocked, or there is no 200.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._bodies: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # and until when to believe it

    async def issuer_of(self, der: bytes, deadline: float) -> bytes | None:
        """Return the certificate of another's issuer as DER; None if it cannot be fetched."""
        certificate = certificate_of(der)
        if certificate is None:
            return None
        for address in parse_issuer_urls(der)[:_MAX_URLS_PER_CERTIFICATE]:
            for candidate in _certificates(await self._body(address, deadline)):
                if _can_issue(candidate, certificate):
                    return candidate
        return None

    async def _body(self, address: str, deadline: float) -> bytes:
        loop = asyncio.get_running_loop()
        body, until = self._bodies.get(address, (b"", 0.0))
        if until > loop.time():
            return body
        url = parse_url(address) if address.startswith("http:") else None
        try:
            body, until = (await self._fetch(url, deadline), float("inf")) if isinstance(url, Url) else (b"", 0.0)
        except Exception:
            body = b""
        if not body:
            until = loop.time() + _FAILURE_SECONDS
        self._bodies[address] = body, until
        if len(self._bodies) > _MAX_URLS:
            self._bodies.popitem(last=False)
        return body


def _certificates(body: bytes) -> list[bytes]:
    """Return the certificates of a body: DER, PEM or PKCS #7."""
    if body.startswith(b"-----BEGIN CERTIFICATE-----"):
        try:
            return [ssl.PEM_cert_to_DER_cert(body.decode("ascii"))]
        except ValueError:
            return []
    return [body] if certificate_of(body) else parse_pkcs7_certificates(body)


def _can_issue(der: bytes, certificate: Certificate) -> bool:
    issuer = certificate_of(der)
    return issuer is not None and issuer.subject_name == certificate.issuer_name and not is_self_issued(issuer)
