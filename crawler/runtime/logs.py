"""Log lines: text for a person or JSON for a program, with what they are about, without secrets, and none forged.

Nothing is configured until `write_logs` is called, which is for who owns the process.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Self

import msgspec

__all__ = ["JsonLines", "Settings", "TextLines", "about", "fields", "note", "settings", "write_logs"]

_ABOUT: Final[ContextVar[Mapping[str, str]]] = ContextVar("about", default={})  # noqa: B039 - it is never changed

# Runs of characters as URLs have them; each is looked at once, however long it is.
_RUN: Final = re.compile(r"[?#]\S+|[^\s/?#]+")
_CREDENTIALS: Final = re.compile(r"\b(bearer|basic)\s+\S+|whsec_\S+", re.IGNORECASE)
_HIDDEN: Final = "***"
_INDENT: Final = "\n    "


# --- What lines are about ---


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Have these fields, and no others, in each line of what is done inside, and of the tasks that it starts."""
    token = _ABOUT.set(fields)
    try:
        yield
    finally:
        _ABOUT.reset(token)


def note(**fields: str) -> None:
    """Have these fields too, from here to the end of the innermost `about`."""
    _ABOUT.set({**_ABOUT.get(), **fields})


def fields() -> Mapping[str, str]:
    """What lines are about here."""
    return _ABOUT.get()


# --- How they are written ---


class TextLines(logging.Formatter):
    """`time level logger message field=value ...`; the lines of an exception below it are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as text."""
        about = "".join(f" {name}={_safe(value)}" for name, value in fields().items())
        line = f"{_time(record)} {record.levelname.lower()} {record.name} {_safe(record.getMessage())}{about}"
        return _INDENT.join([line, *self._exception(record)])

    def _exception(self, record: logging.LogRecord) -> list[str]:
        text = self.formatException(record.exc_info) if record.exc_info else ""
        # Of what could end a line, only what does so here: else a message could have a line of its own.
        return [_safe(line) for line in text.split("\n") if line]


class JsonLines(TextLines):
    """An object a line: `time`, `level`, `logger`, `message`, what the message was made of, the fields, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as JSON."""
        parts = record.args if isinstance(record.args, Mapping) else {}
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _safe(record.getMessage()),
        }
        for name, value in {**parts, **fields()}.items():
            line.setdefault(str(name), value if isinstance(value, int | float | None) else _safe(str(value)))
        if exception := self._exception(record):
            line["exception"] = "\n".join(exception)
        return msgspec.json.encode(line).decode()


class Settings(NamedTuple):
    """From which level on is logged, as a number of logging's, and how."""

    level: int = logging.WARNING
    as_json: bool = False

    @classmethod
    def named(cls, level: str, *, as_json: bool) -> Self:
        """Of the options of a service."""
        return cls(logging.getLevelNamesMapping()[level.upper()], as_json)


def write_logs(settings: Settings) -> None:
    """Write what is logged to standard error, unless this program has logging set up already."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = _Handler()
    handler.setFormatter(JsonLines() if settings.as_json else TextLines())
    root.addHandler(handler)
    root.setLevel(settings.level)
    logging.getLogger("docket").setLevel(max(settings.level, logging.WARNING))  # below, it tells of each chunk


def settings() -> Settings:
    """What this process has, for those that it starts."""
    root = logging.getLogger()
    return Settings(root.level, any(isinstance(handler.formatter, JsonLines) for handler in root.handlers))


class _Handler(logging.StreamHandler[Any]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - it is logging's name
        """Lose a line that cannot be written: what logging would print instead has its arguments as they are."""


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _safe(text: str) -> str:
    """A text on one line, in which all characters can be seen, and no secrets."""
    if not text.isprintable():  # as are ends of lines, escapes of terminals, and what turns the direction of writing
        text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return _CREDENTIALS.sub(lambda found: f"{found[1] or ''} {_HIDDEN}".strip(), _RUN.sub(_hide, text))


def _hide(run: re.Match[str]) -> str:
    """Queries and fragments, and what stands before an @: rather too much than a secret too few."""
    text = run[0]
    if text[0] in "?#":
        return text[0] + _HIDDEN
    at = text.rfind("@")
    return _HIDDEN + text[at:] if at > 0 else text
