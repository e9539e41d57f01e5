"""Access rules: which routes need a token, what a token allows, and which Tasks its owner sees."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from crawler.core.errors import AccessDenied
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Task
from crawler.core.tokens import Token, find_token, parse_tokens, read_tokens

__all__ = ["HEALTH_ROUTES", "OPEN_ROUTES", "Authorizer"]

HEALTH_ROUTES: Final = frozenset({"/healthz", "/readyz"})  # load balancers use an address as Host
OPEN_ROUTES: Final = HEALTH_ROUTES | {"/openapi.json", "/docs", "/docs/{name}"}
"""Routes that need no token: they show nothing of Tasks."""


class Authorizer:
    """The access rules of one application.

    Args:
        service: Has the tokens.
        only_local: Whether an application without tokens serves only programs of this machine.

    Attributes:
        is_only_local: Whether it serves only programs of this machine.

    Raises:
        InputError: The file of tokens cannot be read, or one of its lines is not a token.
    """

    def __init__(self, service: ServiceOptions, *, only_local: bool) -> None:
        self._tokens = parse_tokens(service.tokens, "tokens")
        if service.token_file is not None:
            self._tokens += read_tokens(Path(service.token_file))
        self._shares_tasks = service.share_tasks
        self.is_only_local = only_local and not self._tokens

    @property
    def has_tokens(self) -> bool:
        """Whether requests need a token."""
        return bool(self._tokens)

    def authenticate(self, authorizations: Sequence[str], *, is_change: bool) -> Token:
        """Return the token of a request.

        Args:
            authorizations: The values of its Authorization headers.
            is_change: Whether the request changes something, which a token for reading does not allow.

        Raises:
            AccessDenied: The token is missing, unknown, given twice, or does not allow the change.
        """
        if len(authorizations) > 1:
            raise AccessDenied("Authorization: given twice", "invalid_request")
        scheme, _, secret = "".join(authorizations).partition(" ")
        if scheme.lower() != "bearer":
            raise AccessDenied("Authorization: a bearer token is needed", "")
        token = find_token(secret.strip(), self._tokens)
        if token is None:
            raise AccessDenied("Authorization: unknown token", "invalid_token")
        if is_change and token.scope == "read":
            raise AccessDenied("this token may only read", "insufficient_scope")
        return token

    def may_see(self, owner: str | None, task: Task) -> bool:
        """Return whether an owner may see a Task. Without tokens all Tasks have one owner: the user of this machine."""
        return not self._tokens or self._shares_tasks or task.owner == owner
