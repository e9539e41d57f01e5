"""Answer the challenge of a 401 with the user name and password of the URL: Basic and Digest (RFC 7617, RFC 7616).

As browsers do, a probe sends them only when the server asks. aiohttp and httpx have Digest too, but only inside their
own clients.
"""

import base64
import hashlib
import re
import secrets
import time
from typing import Final

from crawler.core.options import Options
from crawler.core.results import HopResult
from crawler.core.urls import Url
from crawler.probing.cookies import update_cookies
from crawler.probing.probe_state import Challenge, ProbeState

__all__ = ["answer_challenge", "authorization", "parse_challenge"]

_UNAUTHORIZED: Final = 401
_MAX_ANSWERS: Final = 3  # for one URL: a server may call two nonces stale
_PARAMETER = re.compile(r'([^\s=,"]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"?|([^,]*))')
_ESCAPED = re.compile(r"\\(.)")
_SPECIAL = re.compile(r'(["\\])')
_HASHES: Final = {"": hashlib.md5, "md5": hashlib.md5, "sha-256": hashlib.sha256}
_SESSION: Final = "-sess"


def answer_challenge(state: ProbeState, hop: HopResult, options: Options, answered: Challenge | None) -> bool:
    """Let the next request answer the challenge of a 401; false if it cannot, or if that would not help.

    Args:
        state: The state of the probe; its URL is the one that answered.
        hop: The answer.
        options: The options of the probe. A header `Authorization` in them is never replaced.
        answered: The challenge that the request has answered; then only a stale nonce is answered again.
    """
    if hop.status != _UNAUTHORIZED or state.url.authorization is None or state.challenges >= _MAX_ANSWERS:
        return False
    if state.is_at_first_origin and any(name.lower() == "authorization" for name in options.headers):
        return False
    offered = [parse_challenge(value) for name, value in hop.headers if name == "www-authenticate"]
    known = [challenge for challenge in offered if challenge is not None]
    # As in Chromium, Digest is preferred to Basic, and the first challenge to later ones.
    challenge = min(known, key=lambda each: each.scheme != "digest", default=None)
    if challenge is None or (answered is not None and not challenge.is_stale):
        return False
    state.challenge = challenge
    state.challenges += 1
    state.signed_in = (*state.signed_in, (state.url.origin, state.url.authorization))
    state.cookies = update_cookies(state.cookies, hop.headers, state.url, time.time())
    return True


def parse_challenge(text: str) -> Challenge | None:
    """Read one WWW-Authenticate header; None for another scheme, or a Digest that is incomplete or of unknown hash.

    As in Chromium, a header has one challenge: that of its first scheme.
    """
    scheme, _, rest = text.strip().partition(" ")
    name = scheme.lower()
    if name == "basic":
        return Challenge("basic")
    if name != "digest":
        return None
    parameters: dict[str, str] = {}
    for key, quoted, plain in _PARAMETER.findall(rest):
        parameters.setdefault(key.lower(), _ESCAPED.sub(r"\1", quoted) or plain.strip())
    algorithm = parameters.get("algorithm", "")
    if not parameters.get("nonce") or algorithm.lower().removesuffix(_SESSION) not in _HASHES:
        return None
    qualities = [each.strip().lower() for each in parameters.get("qop", "").split(",")]
    return Challenge(
        "digest",
        realm=parameters.get("realm", ""),
        nonce=parameters["nonce"],
        opaque=parameters.get("opaque"),
        algorithm=algorithm,
        has_qop="auth" in qualities,
        is_stale=parameters.get("stale", "").lower() == "true",
        hides_user=parameters.get("userhash", "").lower() == "true",
    )


def authorization(challenge: Challenge, url: Url, method: str, client_nonce: str | None = None) -> str:
    """Return the Authorization header that answers a challenge.

    Args:
        challenge: What the server has asked for.
        url: With a user name and password.
        method: The request method.
        client_nonce: For tests with a known answer; None for a random one.
    """
    assert url.authorization is not None
    if challenge.scheme == "basic":
        return url.authorization
    pair = base64.b64decode(url.authorization.removeprefix("Basic ")).decode("latin-1")
    user, _, password = pair.partition(":")
    kind = challenge.algorithm.lower()
    make_hash = _HASHES[kind.removesuffix(_SESSION)]

    def digest(*parts: str) -> str:
        return make_hash(":".join(parts).encode("latin-1"), usedforsecurity=False).hexdigest()

    cnonce = client_nonce or secrets.token_hex(8)
    secret = digest(user, challenge.realm, password)
    if kind.endswith(_SESSION):
        secret = digest(secret, challenge.nonce, cnonce)
    # Each nonce is used once, so the count is always 1. A client without qop answers by RFC 2069.
    quality = ("00000001", cnonce, "auth") if challenge.has_qop else ()
    response = digest(secret, challenge.nonce, *quality, digest(method, url.path))
    name = digest(user, challenge.realm) if challenge.hides_user else user
    fields = [f"username={_quote(name)}", f"realm={_quote(challenge.realm)}", f"nonce={_quote(challenge.nonce)}"]
    fields.append(f"uri={_quote(url.path)}")
    if challenge.algorithm:
        fields.append(f"algorithm={challenge.algorithm}")
    fields.append(f'response="{response}"')
    if challenge.opaque is not None:
        fields.append(f"opaque={_quote(challenge.opaque)}")
    if quality:
        fields.append(f'qop=auth, nc=00000001, cnonce="{cnonce}"')
    if challenge.hides_user:
        fields.append("userhash=true")
    return "Digest " + ", ".join(fields)


def _quote(text: str) -> str:
    return '"' + _SPECIAL.sub(r"\\\1", text) + '"'
