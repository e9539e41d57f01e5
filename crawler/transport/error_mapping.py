"""Turn an exception into the error of a probe.

`explain` accepts every exception that a hop can meet; `error_tables` has the rules. A test walks the exception classes
of aiodns, ssl, asyncio and the operating system, and fails when one has no rule.
"""

import re
import socket
import ssl

from aiodns.error import DNSError

from crawler.core.error_types import ERROR_TYPES
from crawler.core.results import ProbeError
from crawler.transport.error_tables import (
    BY_PHASE,
    CARES_TYPES,
    CLASS_RULES,
    ERRNO_TYPES,
    GETADDRINFO_TYPES,
    SSL_REASON_TYPES,
    TIMEOUT_TYPES,
    VERIFY_CODE_TYPES,
)
from crawler.transport.tls.messages import SSL_REASON_MESSAGES, VERIFY_CODE_MESSAGES

__all__ = ["HopError", "explain", "rule_of", "ssl_reason"]

_SSL_PREFIX = re.compile(r"^(SSLV3|TLSV1|TLSV13)_")
_UNNAMED_SSL_REASON = re.compile(r"^\[SSL\] ([a-z0-9 ]+) \(_ssl\.c:[0-9]+\)$")
_MAX_MESSAGE_CHARACTERS = 300


class HopError(Exception):
    """Ends a hop with an error that no library has raised, such as a blocked address."""

    def __init__(self, problem: ProbeError) -> None:
        super().__init__(problem.message)
        self.problem = problem


def explain(error: BaseException, phase: str) -> ProbeError:
    """Return the error that an exception means for the target.

    Args:
        error: Any exception. One without a rule becomes `unknown`.
        phase: The phase that it ended: dns, connect, tls or http.
    """
    if isinstance(error, HopError):
        return error.problem
    type_ = _error_type(error, phase)
    if type_ == "tcp.closed" and phase == "connect":
        type_ = "tcp.aborted"
    return ProbeError.of(type_, _message(error) or ERROR_TYPES[type_].meaning, phase=phase)


def rule_of(kind: type[BaseException]) -> str | None:
    """Return the rule for exactly this exception class; None if only a base class has one."""
    return CLASS_RULES.get(kind)


def _class_rule(error: BaseException) -> str:
    return next((rule for base in type(error).__mro__ if (rule := rule_of(base)) is not None), "unknown")


def _error_type(error: BaseException, phase: str) -> str:
    rule = _rule_by_number(error) or _class_rule(error)
    return TIMEOUT_TYPES[phase] if rule == BY_PHASE else rule


def _rule_by_number(error: BaseException) -> str | None:
    """Return the rule for the number in an exception (errno, status, ...); None if there is no rule for it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return VERIFY_CODE_TYPES.get(getattr(error, "verify_code", 0))
    if isinstance(error, ssl.SSLError):
        return SSL_REASON_TYPES.get(ssl_reason(error))
    if isinstance(error, DNSError) and error.args:
        return CARES_TYPES.get(error.args[0])
    if isinstance(error, socket.gaierror):
        return GETADDRINFO_TYPES.get(error.errno or 0)
    if isinstance(error, TimeoutError):
        return BY_PHASE
    if isinstance(error, OSError):  # on uvloop errno can be None; then the class decides
        return ERRNO_TYPES.get(error.errno or 0)
    return None


def ssl_reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason without its prefix, for example `ALERT_HANDSHAKE_FAILURE`; empty if it gives none.

    Python lacks the names of newer reasons; then the exception's text has it.
    """
    if not (reason := getattr(error, "reason", None)):
        found = _UNNAMED_SSL_REASON.match(str(error))
        reason = found[1].upper().replace(" ", "_") if found else ""
    return _SSL_PREFIX.sub("", str(reason))


def _message(error: BaseException) -> str:
    """Return the exception's text in one line; empty if it has none."""
    return " ".join(_text(error).split())[:_MAX_MESSAGE_CHARACTERS]


def _text(error: BaseException) -> str:
    # An SSLError that OpenSSL did not raise lacks these attributes. OpenSSL's file and line numbers help no reader.
    if isinstance(error, ssl.SSLCertVerificationError):
        code, verify_message = getattr(error, "verify_code", 0), getattr(error, "verify_message", None)
        return VERIFY_CODE_MESSAGES.get(code) or f"the certificate is not valid: {verify_message or error}"
    if isinstance(error, ssl.SSLError) and (reason := ssl_reason(error)):
        return SSL_REASON_MESSAGES.get(reason) or f"the TLS handshake failed: {reason.replace('_', ' ').lower()}"
    if isinstance(error, DNSError) and len(error.args) > 1:
        return str(error.args[1])
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    if isinstance(error, EOFError):
        return ""  # its text counts bytes
    return str(getattr(error, "message", error))
