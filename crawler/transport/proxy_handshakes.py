"""The handshakes with proxies: CONNECT (RFC 9110, 9.3.6) and SOCKS5 (RFC 1928, RFC 1929).

Each handshake turns a connection to the proxy into a connection to the target. If the proxy refuses, it raises a
`HopError` whose message names the proxy.
"""

import base64
from ipaddress import ip_address
from typing import Final

from crawler.core.option_syntax import ProxyAddress
from crawler.core.results import ProbeError
from crawler.core.urls import Url
from crawler.transport.error_mapping import HopError
from crawler.transport.http.exchange import read_head
from crawler.transport.http.response_head import HeadError, ResponseHead
from crawler.transport.sockets.connection import Connection
from crawler.transport.timing import HopTimer

__all__ = ["authorization", "connect_by_http", "connect_by_socks", "proxy_error", "refusal_error"]

_MAX_SHOWN_CHARACTERS: Final = 100  # of a text that a proxy sends

_NO_AUTHENTICATION: Final = 0
_USER_AND_PASSWORD: Final = 2
_NO_ACCEPTABLE_METHOD: Final = 0xFF
_CONNECT: Final = 1
_NAME: Final = 3
_IPV4: Final = 1
_IPV6: Final = 4
_ADDRESS_BYTES: Final = {_IPV4: 4, _IPV6: 16}

# Replies of RFC 1928, 6. Replies about the target have the error types of a direct connection.
_SOCKS_REPLIES: Final = {
    1: ("proxy.failed", "general failure"),  # some proxies also answer this when a name has no address
    2: ("proxy.refused", "not allowed by its rules"),
    3: ("tcp.address_unreachable", "network unreachable"),
    4: ("tcp.address_unreachable", "host unreachable, or its name has no address"),
    5: ("tcp.refused", "connection refused"),
    6: ("tcp.timed_out", "TTL expired"),
    7: ("proxy.refused", "command not supported"),
    8: ("proxy.refused", "address type not supported"),
}


def proxy_error(type_: str, proxy: ProxyAddress, problem: str) -> HopError:
    """Make the error of a hop that the proxy ended."""
    return HopError(ProbeError.of(type_, f"the proxy {proxy} {problem}", phase="connect"))


def authorization(proxy: ProxyAddress) -> str:
    """Return the value of Proxy-Authorization for the scheme Basic (RFC 7617); empty without credentials."""
    if proxy.credentials is None:
        return ""
    return "Basic " + base64.b64encode(b":".join(proxy.credentials)).decode()


async def connect_by_http(connection: Connection, proxy: ProxyAddress, url: Url, deadline: float) -> None:
    """Request a tunnel to the URL's host and port from an HTTP proxy.

    Raises:
        EOFError: The connection ended.
        HopError: The proxy refused, or is not an HTTP proxy.
        OSError: The connection broke, or the deadline passed.
    """
    host = f"[{url.host}]" if ":" in url.host else url.host
    target = f"{host}:{url.port}"  # always with the port (RFC 9110, 9.3.6)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if value := authorization(proxy):
        lines.append(f"Proxy-Authorization: {value}")
    await connection.send("\r\n".join([*lines, "\r\n"]).encode("latin-1"), deadline)
    try:
        head, rest = await read_head(connection, HopTimer(), deadline)
    except HeadError as error:
        raise proxy_error("proxy.protocol.error", proxy, f"does not speak HTTP: {error}") from error
    if not 200 <= head.status < 300:
        raise refusal_error(head, proxy, f"CONNECT {target}")
    if rest:  # in a TLS connection the client speaks first
        raise proxy_error("proxy.protocol.error", proxy, f"sent more than an answer to CONNECT {target}")
    if not connection.is_reusable:  # the end of the stream may have ended the head
        raise EOFError


def refusal_error(head: ResponseHead, proxy: ProxyAddress, request: str) -> HopError:
    """Make the error for a response that refuses `request`."""
    if head.status in (407, 401):  # tinyproxy answers 401 to a wrong password
        problem = "does not accept the user and password" if proxy.credentials else "requires a user and a password"
        return proxy_error("proxy.auth_required", proxy, f"{problem} ({head.status})")
    # Proxies give the reason in Proxy-Status (RFC 9209, 2); Squid gives it in a field of its own.
    reason = head.get("proxy-status") or head.get("x-squid-error") or ""
    shown = f" ({_printable(reason)})" if reason else ""
    type_ = "proxy.failed" if head.status >= 500 and head.status != 501 else "proxy.refused"
    return proxy_error(type_, proxy, f"answered {head.status} to {request}{shown}")


async def connect_by_socks(connection: Connection, proxy: ProxyAddress, host: str, port: int, deadline: float) -> None:
    """Request a connection to a name or an address from a SOCKS5 proxy.

    Args:
        connection: The connection to the proxy.
        proxy: The proxy's address, for messages, and its credentials.
        host: A name that the proxy resolves, or an address.
        port: The port of the target.
        deadline: Time of the clock.

    Raises:
        EOFError: The connection ended.
        HopError: The proxy refused or is not a SOCKS5 proxy, or the target could not be reached.
        OSError: The connection broke, or the deadline passed before the proxy's first answer.
    """
    await _greet(connection, proxy, deadline)
    await connection.send(bytes([5, _CONNECT, 0]) + _socks_address(host) + port.to_bytes(2), deadline)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        version, reply = await _read(connection, 2, deadline)
        if version == 5 and reply == 0:
            _, kind, first = await _read(connection, 3, deadline)
            size = 1 + first if kind == _NAME else _ADDRESS_BYTES.get(kind, 1)
            await _read(connection, size - 1 + 2, deadline)  # the rest of the proxy's own address, and its port
    except TimeoutError:
        # The proxy has answered the greeting, so the target does not answer.
        problem = f"the proxy {proxy} could not connect to {target} in time"
        raise HopError(ProbeError.of("tcp.timed_out", problem)) from None
    if version != 5:
        raise _not_socks(proxy, bytes([version, reply]))
    if reply:
        type_, meaning = _SOCKS_REPLIES.get(reply, ("proxy.failed", "unknown reply"))
        raise proxy_error(type_, proxy, f"answered {reply} ({meaning}) to a connection to {target}")


async def _greet(connection: Connection, proxy: ProxyAddress, deadline: float) -> None:
    """Agree with a SOCKS5 proxy on a method of authentication, and authenticate."""
    methods = [_NO_AUTHENTICATION] if proxy.credentials is None else [_NO_AUTHENTICATION, _USER_AND_PASSWORD]
    await connection.send(bytes([5, len(methods), *methods]), deadline)
    answer = await _read(connection, 2, deadline)
    if answer[0] != 5 or answer[1] not in (*methods, _NO_ACCEPTABLE_METHOD):
        raise _not_socks(proxy, answer)
    if answer[1] == _NO_ACCEPTABLE_METHOD:
        problem = "accepts no user and password" if proxy.credentials else "requires a user and a password"
        raise proxy_error("proxy.auth_required", proxy, problem)
    if answer[1] == _USER_AND_PASSWORD and proxy.credentials is not None:
        user, password = proxy.credentials
        await connection.send(bytes([1, len(user)]) + user + bytes([len(password)]) + password, deadline)  # RFC 1929, 2
        if (await _read(connection, 2, deadline))[1] != 0:
            raise proxy_error("proxy.auth_required", proxy, "does not accept the user and password")


def _not_socks(proxy: ProxyAddress, answer: bytes) -> HopError:
    shown = answer.decode("latin-1") if answer.isalnum() else answer.hex(" ")
    return proxy_error("proxy.protocol.error", proxy, f"does not speak SOCKS5: its answer begins with {shown}")


def _socks_address(host: str) -> bytes:
    """Return the type and the bytes of an address or name (RFC 1928, 5)."""
    try:
        address = ip_address(host)
    except ValueError:
        return bytes([_NAME, len(host)]) + host.encode()
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


async def _read(connection: Connection, size: int, deadline: float) -> bytes:
    """Read exactly `size` bytes. Further ones may be the target's, if its protocol lets the server speak first."""
    data = b""
    while len(data) < size:
        received = await connection.receive(deadline, size - len(data))
        if not received:
            raise EOFError
        data += received
    return data


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_SHOWN_CHARACTERS])
