"""Fetch intermediate certificates that servers should send but omit, as browsers do (RFC 5280, 4.2.2.1)."""

import asyncio
import math
import re
import ssl
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from crawler.core.urls import Url, parse_url, resolve_redirect
from crawler.transport.tls.certificates import Certificate, is_self_issued, parse_issuer_urls, parse_pkcs7_certificates
from crawler.transport.tls.report import certificate_of

__all__ = ["MAX_ISSUER_BYTES", "IssuerStore"]

MAX_ISSUER_BYTES: Final = 64 * 1024
_MAX_URLS: Final = 1_000
_MAX_URLS_PER_CERTIFICATE: Final = 3  # by http; authorities for Windows name one by LDAP first
_MAX_REQUESTS: Final = 5  # for one certificate, with redirects
_FAILURE_TTL_SECONDS: Final = 60.0  # until a failed fetch is tried again
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")

Fetch = Callable[[Url, float], Awaitable[bytes | str]]


class IssuerStore:
    """Fetches the certificates of issuers, and keeps them by URL.

    A fetched certificate is not trusted: it only completes a chain that ends at a trusted root. So a self-issued
    certificate is refused, because OpenSSL could take it for a root.

    Args:
        fetch: Returns the body of an http URL, at most `MAX_ISSUER_BYTES` of it, before a deadline; of a redirect, its
            Location. It returns no bytes for other statuses than 200, and may raise any exception.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._bodies: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # each with the loop time of its expiry

    async def fetch_issuer_of(self, der: bytes, deadline: float) -> bytes | None:
        """Return the certificate of a certificate's issuer, both as DER; None if none that is valid can be fetched."""
        certificate = certificate_of(der)
        if certificate is None:
            return None
        hrefs = [href for href in parse_issuer_urls(der) if href.lower().startswith("http:")]
        for href in hrefs[:_MAX_URLS_PER_CERTIFICATE]:
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
        with suppress(Exception):
            body = await self._follow(href, deadline)
        self._bodies[href] = body, math.inf if body else loop.time() + _FAILURE_TTL_SECONDS
        if len(self._bodies) > _MAX_URLS:
            self._bodies.popitem(last=False)
        return body

    async def _follow(self, href: str, deadline: float) -> bytes:
        """Return the body at the end of the redirects from a URL, which stay with http."""
        url = parse_url(href)
        for _ in range(_MAX_REQUESTS):
            if not isinstance(url, Url) or url.scheme != "http":
                break
            answer = await self._fetch(url, deadline)
            if isinstance(answer, bytes):
                return answer
            url = resolve_redirect(url, answer)
        return b""


def _parse_body(body: bytes) -> list[bytes]:
    """Return the certificates of a body in DER, PEM or PKCS #7, each as DER. PEM may have text around it."""
    if certificate_of(body):
        return [body]
    found = []
    for block in _PEM.findall(body):
        with suppress(ValueError):
            found.append(ssl.PEM_cert_to_DER_cert(block.decode("ascii")))
    return found or parse_pkcs7_certificates(body)


def _can_issue(der: bytes, certificate: Certificate) -> bool:
    issuer = certificate_of(der)
    if issuer is None or is_self_issued(issuer) or issuer.not_after < time.time():
        return False
    return issuer.subject_name == certificate.issuer_name
