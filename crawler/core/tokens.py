"""Bearer tokens: who may use the service, and for what.

A token is spelled `SECRET`, `NAME:SECRET` or `NAME:SCOPE:SECRET`, where the scope is `read` or `write`. A secret has no
colon (RFC 6750, 2.1), so that these can be told apart. Secrets are not kept, their digests are.
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

_NAME: Final = r"[A-Za-z0-9._-]{1,64}"
_SECRET: Final = r"[A-Za-z0-9._~+/-]+=*"  # token68 of RFC 9110, 11.2
_TOKEN: Final = re.compile(rf"(?:(?P<name>{_NAME}):(?:(?P<scope>{'|'.join(get_args(Scope))}):)?)?(?P<secret>{_SECRET})")


class Token(NamedTuple):
    """Who has it, as Tasks keep it; what he may do; and what tells it from others."""

    name: str
    scope: Scope
    digest: bytes


def parse_tokens(lines: Iterable[str], place: str) -> list[Token]:
    """The tokens of these lines. Several may have one name, and then share their Tasks.

    Raises:
        OptionError: A line has another form, or a secret stands there twice; neither is shown.
    """
    return _parsed(enumerate(lines, 1), place)


def read_tokens(path: Path) -> list[Token]:
    """The tokens of a file: one a line, but for empty ones and those that begin with `#`.

    Raises:
        InputError: The file cannot be read, or has none, or something else in it.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"cannot be read: {reason}", str(path)) from None
    tokens = _parsed(((number, line) for number, line in enumerate(lines, 1) if line and line[0] != "#"), str(path))
    if not tokens:
        raise InputError("there is no token in it", str(path))
    return tokens


def find_token(secret: str, tokens: Sequence[Token]) -> Token | None:
    """The token with this secret, found in a time that says nothing of it or of the others."""
    digest = _digest(secret)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def _parsed(lines: Iterable[tuple[int, str]], place: str) -> list[Token]:
    tokens: dict[bytes, Token] = {}
    for number, line in lines:
        spelt = _TOKEN.fullmatch(line)
        if spelt is None:
            raise OptionError(f"number {number} is not SECRET, NAME:SECRET or NAME:read|write:SECRET", place)
        digest = _digest(spelt["secret"])
        if digest in tokens:
            raise OptionError(f"the secret of number {number} stands there before", place)
        scope: Scope = "read" if spelt["scope"] == "read" else "write"
        # One without a name needs one that is the same after a restart. This much of a digest gives no secret away.
        tokens[digest] = Token(spelt["name"] or f"token-{digest.hex()[:16]}", scope, digest)
    return list(tokens.values())
