"""Bearer tokens, which authenticate clients of the service.

A token is written as `SECRET`, `NAME:SECRET` or `NAME:SCOPE:SECRET`, where the scope is `read` or `write`. A secret has
no colon (RFC 6750, 2.1), so the forms cannot be confused. The service keeps digests of the secrets, not the secrets.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from crawler.core.errors import InputError, OptionError

__all__ = ["Scope", "Token", "find_token", "parse_tokens", "read_tokens"]

Scope = Literal["read", "write"]

_NAME_PATTERN: Final = r"[A-Za-z0-9._-]{1,64}"
_SECRET_PATTERN: Final = r"[A-Za-z0-9._~+/-]+=*"  # token68 of RFC 9110, 11.2
_TOKEN: Final = re.compile(
    rf"(?:(?P<name>{_NAME_PATTERN}):(?:(?P<scope>{'|'.join(get_args(Scope))}):)?)?(?P<secret>{_SECRET_PATTERN})"
)


class Token(NamedTuple):
    """The owner's name, as Tasks store it; what the owner may do; and the SHA-256 digest of the secret."""

    name: str
    scope: Scope
    digest: bytes


def parse_tokens(lines: Iterable[str], place: str) -> list[Token]:
    """Parse tokens, one a line. Tokens with the same name share their Tasks.

    Raises:
        OptionError: A line has another form, or two lines have the same secret. The message shows no secret.
    """
    return _parse_lines(enumerate(lines, 1), place)


def read_tokens(path: Path) -> list[Token]:
    """Read a file of tokens, one a line; empty lines and lines that begin with `#` are skipped.

    Raises:
        InputError: The file cannot be read, has no token, or has a wrong line.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"cannot be read: {reason}", str(path)) from None
    tokens = _parse_lines(
        ((number, line) for number, line in enumerate(lines, 1) if line and line[0] != "#"), str(path)
    )
    if not tokens:
        raise InputError("has no token", str(path))
    return tokens


def find_token(secret: str, tokens: Sequence[Token]) -> Token | None:
    """Find the token with this secret. Compares digests in constant time."""
    digest = _digest(secret)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def _parse_lines(lines: Iterable[tuple[int, str]], place: str) -> list[Token]:
    tokens: dict[bytes, Token] = {}
    numbers: dict[bytes, int] = {}
    for number, line in lines:
        match = _TOKEN.fullmatch(line)
        if match is None:
            raise OptionError(f"number {number} is not SECRET, NAME:SECRET or NAME:read|write:SECRET", place)
        digest = _digest(match["secret"])
        first = numbers.setdefault(digest, number)
        if first != number:
            raise OptionError(f"two tokens have the same secret ({first} and {number})", place)
        scope: Scope = "read" if match["scope"] == "read" else "write"
        # A token without a name gets one that stays the same after a restart. 64 bits of a digest reveal no secret.
        tokens[digest] = Token(match["name"] or f"token-{digest.hex()[:16]}", scope, digest)
    return list(tokens.values())
