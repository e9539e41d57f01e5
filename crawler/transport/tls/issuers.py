"""Fetch intermediate certificates that servers should send but omit, as browsers do (RFC 5280, 4.2.2.1)."""

import asyncio
import math
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from crawler.core.urls import Url, parse_url
from crawler.transport.tls.certificates import Certificate, is_self_issued, parse_issuer_urls, parse_pkcs7_certificates
from crawler.transport.tls.report import certificate_of

__all__ = ["MAX_ISSUER_BYTES", "IssuerStore"]

MAX_ISSUER_BYTES: Final = 64 * 1024
_MAX_URLS: Final = 1_000
_MAX_URLS_PER_CERTIFICATE: Final = 2
_FAILURE_TTL_SECONDS: Final = 60.0  # until a failed fetch is tried again

Fetch = Callable[[Url, float], Awaitable[bytes]]


class IssuerStore:
    """Fetches the certificates of issuers, and keeps them by URL.

    A fetched certificate is not trusted: it only completes a chain that ends at a trusted root. So a self-issued
    certificate is refused, because OpenSSL could take it for a root.

    Args:
        fetch: Returns the body of an http URL, at most `MAX_ISSUER_BYTES` of it, before a deadline. It
            returns no bytes unless the status is 200, and may raise any exception.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._bodies: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # each with the loop time of its expiry

    async def fetch_issuer_of(self, der: bytes, deadline: float) -> bytes | None:
        """Return the certificate of a certificate's issuer, both as DER; None if it cannot be fetched."""
        certificate = certificate_of(der)
        if certificate is None:
            return None
        for href in parse_issuer_urls(der)[:_MAX_URLS_PER_CERTIFICATE]:
            for candidate in _parse_body(await self._cached_body(href, deadline)):
                if _can_issue(candidate, certificate):
                    return candidate
        return None

    async def _cached_body(self, href: str, deadline: float) -> bytes:
        """Return the body of a URL; empty if it cannot be fetched now."""
        loop = asyncio.get_running_loop()
        body, expires = self._bodies.get(href, (b"", 0.0))
        if expires > loop.time():
            return body
        url = parse_url(href) if href.startswith("http:") else None
        body = b""
        if isinstance(url, Url):
            with suppress(Exception):
                body = await self._fetch(url, deadline)
        self._bodies[href] = body, math.inf if body else loop.time() + _FAILURE_TTL_SECONDS
        if len(self._bodies) > _MAX_URLS:
            self._bodies.popitem(last=False)
        return body


def _parse_body(body: bytes) -> list[bytes]:
    """Return the certificates of a body in DER, PEM or PKCS #7, each as DER."""
    if body.startswith(b"-----BEGIN CERTIFICATE-----"):
        try:
            return [ssl.PEM_cert_to_DER_cert(body.decode("ascii"))]
        except ValueError:
            return []
    return [body] if certificate_of(body) else parse_pkcs7_certificates(body)


def _can_issue(der: bytes, certificate: Certificate) -> bool:
    issuer = certificate_of(der)
    return issuer is not None and issuer.subject_name == certificate.issuer_name and not is_self_issued(issuer)
