"""Log lines as text or JSON, with fields for the request and the Task.

Queries and credentials are replaced by ***, and no message can forge another line. Nothing is configured until
`configure_logging` is called, which only the owner of the process does.
"""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Self

import msgspec

from crawler.runtime.log_writer import QueuedHandler

__all__ = [
    "JsonFormatter",
    "LogSettings",
    "TextFormatter",
    "add_log_fields",
    "configure_logging",
    "current_log_fields",
    "current_log_settings",
    "log_fields",
]

_FIELDS: Final[ContextVar[Mapping[str, str]]] = ContextVar("fields", default={})  # noqa: B039 - it is never changed

# A query or fragment, or a run of other characters of a URL. Each character is matched once, in linear time.
_URL_PART: Final = re.compile(r"[?#]\S+|[^\s/?#]+")
_CREDENTIALS: Final = re.compile(r"\b(bearer|basic)\s+\S+|whsec_\S+", re.IGNORECASE)
_HIDDEN: Final = "***"
_INDENT: Final = "\n    "


# --- Fields ---


@contextmanager
def log_fields(**fields: str) -> Iterator[None]:
    """Add these fields, and no others, to each log line of the context and of the asyncio tasks it starts."""
    token = _FIELDS.set(fields)
    try:
        yield
    finally:
        _FIELDS.reset(token)


def add_log_fields(**fields: str) -> None:
    """Add fields to the log lines from here to the end of the innermost `log_fields`."""
    _FIELDS.set({**_FIELDS.get(), **fields})


def current_log_fields() -> Mapping[str, str]:
    """Return the fields of log lines that are written here."""
    return _FIELDS.get()


# --- Formats ---


class TextFormatter(logging.Formatter):
    """Formats `time level logger message field=value ...`, and below it the indented lines of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as text."""
        fields = "".join(f" {name}={_sanitize(value)}" for name, value in current_log_fields().items())
        line = f"{_time(record)} {record.levelname.lower()} {record.name} {_sanitize(record.getMessage())}{fields}"
        return _INDENT.join([line, *self._exception(record)])

    def _exception(self, record: logging.LogRecord) -> list[str]:
        text = self.formatException(record.exc_info) if record.exc_info else ""
        # Split at line feeds only: another line end inside a message would give that message a line of its own.
        return [_sanitize(line) for line in text.split("\n") if line]


class JsonFormatter(TextFormatter):
    """Formats an object a line: `time`, `level`, `logger`, `message` and its arguments, the fields, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as JSON."""
        arguments = record.args if isinstance(record.args, Mapping) else {}
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _sanitize(record.getMessage()),
        }
        for name, value in {**arguments, **current_log_fields()}.items():
            line.setdefault(str(name), value if isinstance(value, int | float | None) else _sanitize(str(value)))
        if exception := self._exception(record):
            line["exception"] = "\n".join(exception)
        return msgspec.json.encode(line).decode()


# --- Configuration ---


class LogSettings(NamedTuple):
    """The lowest level that is logged, as a number of `logging`, and the format."""

    level: int = logging.WARNING
    as_json: bool = False

    @classmethod
    def named(cls, level: str, *, as_json: bool) -> Self:
        """Make settings from a level's name, such as `info`."""
        return cls(logging.getLevelNamesMapping()[level.upper()], as_json)


def configure_logging(settings: LogSettings) -> None:
    """Write log lines to standard error, unless the program has configured logging already.

    A thread writes them: see `crawler.runtime.log_writer`.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    handler = QueuedHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.as_json else TextFormatter())
    root.addHandler(handler)
    root.setLevel(settings.level)
    logging.getLogger("docket").setLevel(max(settings.level, logging.WARNING))  # its info level has a line a chunk


def current_log_settings() -> LogSettings:
    """Return the settings of this process, to hand them to its child processes."""
    root = logging.getLogger()
    return LogSettings(root.level, any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sanitize(text: str) -> str:
    """Make a text one printable line without secrets."""
    if not text.isprintable():  # line ends, terminal escapes, characters that change the direction of writing
        text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return _CREDENTIALS.sub(lambda found: f"{found[1] or ''} {_HIDDEN}".strip(), _URL_PART.sub(_hide_secrets, text))


def _hide_secrets(part: re.Match[str]) -> str:
    """Hide a query, a fragment, and the text before an @. It may hide more than needed."""
    text = part[0]
    if text[0] in "?#":
        return text[0] + _HIDDEN
    at = text.rfind("@")
    return _HIDDEN + text[at:] if at > 0 else text
