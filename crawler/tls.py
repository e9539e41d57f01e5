"""TLS: the context that every handshake shares, and what a handshake tells of the server."""

import ssl
import time
from typing import Any

from crawler.errors import OptionError
from crawler.models import TLSInfo
from crawler.options import Options

__all__ = ["client_context", "describe"]

_VERIFY_X509_STRICT = 0x20  # X509_V_FLAG_X509_STRICT; `ssl` has the name since Python 3.10 only where OpenSSL does


def client_context(options: Options) -> ssl.SSLContext:
    """The context for all handshakes of a process; making one costs 20 ms.

    Raises:
        OptionError: `cafile` cannot be read or has no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=options.cafile)
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"{options.cafile}: {error.strerror or error}", "cafile") from None
    # Set by default since Python 3.13. It refuses certificates that browsers accept, and verdicts must not depend on
    # the Python that gives them.
    context.verify_flags &= ~_VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def describe(connection: ssl.SSLObject) -> TLSInfo:
    """What a finished handshake agreed on. Of an unverified certificate (`insecure`) Python tells nothing."""
    cipher = connection.cipher()
    certificate: dict[str, Any] = connection.getpeercert() or {}
    expiry = certificate.get("notAfter")
    not_after = int(ssl.cert_time_to_seconds(expiry)) if expiry else None
    return TLSInfo(
        version=connection.version(),
        cipher=cipher[0] if cipher else None,
        issuer=_name(certificate.get("issuer", ())),
        subject=_name(certificate.get("subject", ())),
        not_after=not_after,
        days_left=int((not_after - time.time()) // 86400) if not_after else None,
    )


def _name(distinguished: Any) -> str | None:
    """The common name, or failing that the organisation, of a distinguished name as `ssl` gives it."""
    parts = {key: value for part in distinguished for key, value in part}
    name = parts.get("commonName") or parts.get("organizationName")
    return str(name) if name else None
