"""What `tests.support.site.Site` answers: the first segment of the path selects the behaviour.

Handlers do not check whether the client is still connected: the site cancels them when it leaves.
"""

import asyncio
import html
import json
import math
import struct
import time
import zlib
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial
from urllib.parse import quote

from tests.support.exchange import Exchange

OK = "HTTP/1.1 200 OK"
MIB = 1 << 20

Handler = Callable[[Exchange], Awaitable[None]]
BEHAVIOURS: dict[str, Handler] = {}


async def answer(exchange: Exchange) -> None:
    """Run the behaviour that the first of `exchange.args` names."""
    name, *exchange.args = exchange.args
    await BEHAVIOURS.get(name, not_found)(exchange)


async def not_found(x: Exchange) -> None:
    """Answer a path that is not in the table."""
    await x.reply(404, body=b"no such behaviour")


# --- Answers that are always the same bytes: a head, and a body that HEAD does not get ---


def fixed(*lines: str, status: str = OK, body: str = "ok", length: bool = True) -> tuple[bytes, bytes]:
    """Return a head of these lines, and the body; a Content-Length is added unless `length` is false."""
    if length:
        lines = (*lines, f"Content-Length: {len(body)}")
    return "\r\n".join([status, *lines, "", ""]).encode("latin-1"), body.encode("latin-1")


FIXED: dict[str, tuple[bytes, bytes]] = {
    "": fixed(),
    "ok": fixed(),
    "chunked": fixed("Transfer-Encoding: chunked", body="2\r\nok\r\n0\r\n\r\n", length=False),
    # Redirects without a clear target.
    "no-location": fixed(status="HTTP/1.1 302 Found"),
    "empty-location": fixed("Location: ", status="HTTP/1.1 302 Found"),
    "raw-location": fixed("Location: /ok?caf\xe9 \xff and spaces", status="HTTP/1.1 302 Found"),
    # Heads that a strict parser refuses and browsers accept.
    "te-cl": fixed("Transfer-Encoding: chunked", body="2\r\nok\r\n0\r\n\r\n"),
    "two-lengths": fixed("Content-Length: 2"),
    "space-name": fixed("Na me: x"),
    "no-colon": fixed("a line without one"),
    "obs-fold": fixed("X-Fold: one\r\n two"),
    "non-ascii": fixed("X-Place: caf\xe9 \xff\x80", status="HTTP/1.1 200 Tr\xe8s bien"),
    "no-reason": fixed(status="HTTP/1.1 200"),
    "lowercase-proto": fixed(status="http/1.1 200 OK"),
    "lf-only": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\n", b"ok"),
    "after-close": fixed("Connection: close", "Content-Length: 2", body="ok, and more", length=False),
    "http10": fixed(status="HTTP/1.0 200 OK", length=False),
    # An interim answer before the final one.
    "continue": fixed(status=f"HTTP/1.1 100 Continue\r\n\r\n{OK}"),
    "early-hints": fixed(status=f"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n{OK}"),
    # Contradictions, and what is not HTTP/1.
    "bad-lengths": fixed("Content-Length: 3"),
    "nul-header": fixed("X-Nul: a\0b"),
    "http09": (b"", b"<html>no status line, no headers</html>"),
    "h2-preface": (b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64", b""),  # a SETTINGS frame: 100 streams
    "garbage": (bytes(range(256)) * 4, b""),
    "close": (b"", b""),
    "partial": (b"HTTP/1.1 2", b""),
    "cut-head": (b"HTTP/1.1 200 OK\r\nContent-Le", b""),  # over plain HTTP a browser takes it
}
# These end with the end of the connection. After the others, the client may send the next request.
ENDED_BY_EOF = {"after-close", "http10", "bad-lengths", "http09", "close", "partial", "cut-head"}


async def send_fixed(name: str, x: Exchange) -> None:
    head, body = FIXED[name]
    x.keeps_open = x.keeps_open and name not in ENDED_BY_EOF
    await x.send(head if x.request.method == "HEAD" else head + body)


BEHAVIOURS.update({name: partial(send_fixed, name) for name in FIXED})


def behaviour(handler: Handler) -> Handler:
    """Add a coroutine function to the table; its name is the path."""
    BEHAVIOURS[getattr(handler, "__name__", "").replace("_", "-")] = handler
    return handler


# --- Ordinary answers ---


@behaviour
async def status(x: Exchange) -> None:
    """/status/<three digits>[?Name=value...]: that status, and the query's parameters as headers."""
    await x.reply(x.args[0], x.request.query.items())


@behaviour
async def delay(x: Exchange) -> None:
    """/delay/<seconds>: 200 after a delay."""
    await asyncio.sleep(float(x.args[0]))
    await x.reply()


@behaviour
async def echo(x: Exchange) -> None:
    """/echo...: the request as JSON: method, path, headers, body."""
    r = x.request
    seen = {"method": r.method, "path": r.path, "headers": r.headers, "body": r.body.decode("latin-1")}
    await x.reply(headers=[("Content-Type", "application/json")], body=json.dumps(seen).encode())


@behaviour
async def count(x: Exchange) -> None:
    """/count...: the number of requests for this exact path so far, with this one."""
    await x.reply(body=str(x.hit_number).encode())


@behaviour
async def title(x: Exchange) -> None:
    """/title/<text>: a page with that title."""
    page = f"<!doctype html><html><head><title>{html.escape(x.args[0])}</title></head><body>ok</body></html>"
    await x.reply(headers=[("Content-Type", "text/html; charset=utf-8")], body=page.encode())


# --- Redirects ---


@behaviour
async def redirect(x: Exchange) -> None:
    """/redirect/<n>: n hops, then /ok."""
    left = int(x.args[0]) - 1
    await x.reply(302, [("Location", f"/redirect/{left}" if left > 0 else "/ok")])


@behaviour
async def redirect_to(x: Exchange) -> None:
    """/redirect-to?url=<percent-encoded>[&status=302]: a redirect to any bytes."""
    query = x.request.query
    await x.reply(query.get("status", 302), [("Location", query["url"])])


@behaviour
async def loop(x: Exchange) -> None:
    """/loop/<k>: redirects in a circle of k pages: this one and /loop/<k>/1 to /loop/<k>/<k-1>."""
    pages, page = int(x.args[0]), int(x.args[1]) if x.args[1:] else 0
    onward = (page + 1) % pages
    await x.reply(302, [("Location", f"/loop/{pages}/{onward}" if onward else f"/loop/{pages}")])


@behaviour
async def cookie_wall(x: Exchange) -> None:
    """/cookie-wall: a redirect to itself until the request has the cookie that it sets."""
    if "wall=passed" in x.request.header("Cookie"):
        await x.reply()
    else:
        await x.reply(302, [("Location", x.request.path), ("Set-Cookie", "wall=passed; Path=/")])


# --- Servers that do not support HEAD; all of them answer GET with 200 ---


@behaviour
async def head(x: Exchange) -> None:
    """/head/<code>: HEAD gets the code."""
    await x.reply(x.args[0] if x.request.method == "HEAD" else 200)


@behaviour
async def head_only_405(x: Exchange) -> None:
    """/head-only-405: HEAD is not allowed."""
    x.args = ["405"]
    await head(x)


@behaviour
async def head_hang(x: Exchange) -> None:
    """/head-hang: HEAD gets no answer."""
    await (x.hang() if x.request.method == "HEAD" else x.reply())


@behaviour
async def head_reset(x: Exchange) -> None:
    """/head-reset: HEAD gets an RST."""
    if x.request.method == "HEAD":
        x.reset()
    await x.reply()


@behaviour
async def head_body(x: Exchange) -> None:
    """/head-body: HEAD gets a body, as GET does."""
    await x.send(b"".join(FIXED["ok"]))


# --- Failures that pass ---


@behaviour
async def retry_after(x: Exchange) -> None:
    """/retry-after/<seconds>[?times=1&status=429]: refused that many times, then 200."""
    query = x.request.query
    if x.hit_number > int(query.get("times", 1)):
        await x.reply()
    else:
        await x.reply(query.get("status", 429), [("Retry-After", x.args[0])], body=b"slow down")


@behaviour
async def retry_after_date(x: Exchange) -> None:
    """/retry-after-date/<seconds>[?times=1&status=429]: as /retry-after, with a date."""
    # Dates have whole seconds. This one is rounded up, so it is never too early.
    x.args = [formatdate(math.ceil(time.time() + float(x.args[0])), usegmt=True)]
    await retry_after(x)


@behaviour
async def flaky(x: Exchange) -> None:
    """/flaky/<n>/<any behaviour>: the first n requests are reset."""
    times, *x.args = x.args
    if x.hit_number <= int(times):
        x.reset()
    await answer(x)


# --- Connections that break ---


@behaviour
async def hang(x: Exchange) -> None:
    """/hang: never answers."""
    await x.hang()


@behaviour
async def reset(x: Exchange) -> None:
    """/reset: RST instead of an answer."""
    x.reset()


@behaviour
async def half_close(x: Exchange) -> None:
    """/half-close: a head that promises 100 bytes, then the end of this direction only."""
    await x.send(fixed("Content-Length: 100", length=False)[0])
    await x.connection.half_close()
    await x.hang()


# --- Too slow, too much ---


@behaviour
async def drip_head(x: Exchange) -> None:
    """/drip-head/<seconds>[/<bytes>]: a header one byte at a time, without end if there is no number."""
    await x.send(f"{OK}\r\nX-Drip: ".encode())
    await x.drip(float(x.args[0]), int(x.args[1]) if x.args[1:] else None)
    await x.send(b"\r\nContent-Length: 0\r\n\r\n")


@behaviour
async def drip_body(x: Exchange) -> None:
    """/drip-body/<seconds>[/<bytes>]: a body one byte at a time, of 1 GiB without a number."""
    size = int(x.args[1]) if x.args[1:] else 1 << 30
    await x.send(fixed(f"Content-Length: {size}", length=False)[0])
    if x.request.method != "HEAD":
        await x.drip(float(x.args[0]), size)


@behaviour
async def endless_body(x: Exchange) -> None:
    """/endless-body: no length, no end."""
    x.keeps_open = False
    await x.send(fixed(length=False)[0])
    while x.request.method != "HEAD":
        await x.send(b"a" * 65536)


@behaviour
async def endless_1xx(x: Exchange) -> None:
    """/endless-1xx: interim responses without end."""
    while True:
        await x.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)


@behaviour
async def long_header(x: Exchange) -> None:
    """/long-header/<bytes>: one header of that size."""
    await x.reply(headers=[("X-Long", "a" * int(x.args[0]))])


@behaviour
async def many_headers(x: Exchange) -> None:
    """/many-headers/<n>: n different headers."""
    await x.reply(headers=[(f"X-{n}", "a") for n in range(int(x.args[0]))])


@behaviour
async def bomb(x: Exchange) -> None:
    """/bomb[/<MiB>]: gzip of that many MiB of zeros, 1 KiB for each; 1 GiB without a number."""
    await x.send(fixed("Content-Encoding: gzip", "Transfer-Encoding: chunked", length=False)[0])
    if x.request.method == "HEAD":
        return
    mebibytes, zeros, crc = int(x.args[0]) if x.args else 1024, bytes(MIB), 0
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    # A fully flushed block refers to nothing before it, so one block can be sent any number of times.
    block = deflate.compress(zeros) + deflate.flush(zlib.Z_FULL_FLUSH)

    async def chunk(data: bytes) -> None:
        await x.send(b"%x\r\n%b\r\n" % (len(data), data))

    await chunk(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    for _ in range(mebibytes):
        await chunk(block)
        crc = zlib.crc32(zeros, crc)
    await chunk(deflate.flush() + struct.pack("<II", crc, mebibytes * MIB & 0xFFFFFFFF))
    await x.send(b"0\r\n\r\n")


def redirect_path(url: str, status: int = 302) -> str:
    """Return the path that redirects to `url`."""
    return f"/redirect-to?url={quote(url, safe='')}&status={status}"
