"""A real DNS server on loopback, with UDP and TCP on one port. A test writes its zone line by line.

    async with DnsServer() as names:
        names.a("good.test", "127.0.0.1")
        names.servfail("bad.test")
        resolver = aiodns.DNSResolver(nameservers=[names.address])

Rules for one name add up: `a()` then `delay()` is a slow answer. A name without a rule is NXDOMAIN.
"""

import asyncio
import ipaddress
import socket
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from dnslib import CNAME, QTYPE, RCODE, RDMAP, RR, DNSError, DNSLabel, DNSRecord

from crawler.runtime.cancellation import cancel_and_wait
from tests.support.exchange import ServerConnection

FORGED = {"A": "127.0.0.66", "AAAA": "::66"}
"""The addresses in forged answers."""


@dataclass
class Rule:
    """How queries for one name are answered."""

    addresses: dict[str, deque[str]] = field(default_factory=lambda: {"A": deque(), "AAAA": deque()})
    target: str | None = None
    ttl: int = 60
    rcode: str = "NOERROR"
    delay: float = 0.0
    rotating: bool = False
    truncated: bool = False
    silent: frozenset[str] = frozenset()
    forged: Literal["name", "id"] | None = None
    drops_edns: bool = False


class DnsServer:
    """A DNS server on the running loop, for the length of an `async with`.

    Methods that take a name also take "*.zone": all names below a zone that have no rule of their own.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self._wanted = port
        self.queries: list[tuple[str, str]] = []
        """(name, type) of each query, in order; names in lower case without the last dot."""
        self._rules: dict[str, Rule] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        """Those that answer queries now."""
        self._errors: list[BaseException] = []

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    # --- The zone ---

    def a(self, name: str, *addresses: str, ttl: int = 60) -> None:
        self._set(name, rcode="NOERROR", ttl=ttl).addresses["A"] = deque(addresses)

    def aaaa(self, name: str, *addresses: str, ttl: int = 60) -> None:
        self._set(name, rcode="NOERROR", ttl=ttl).addresses["AAAA"] = deque(addresses)

    def rotating(self, name: str, addresses: list[str]) -> None:
        """Answer each query with the next of these addresses and TTL 0, as in DNS rebinding."""
        rule = self._set(name, rcode="NOERROR", ttl=0, rotating=True)
        for address in addresses:
            rule.addresses["A" if ipaddress.ip_address(address).version == 4 else "AAAA"].append(address)

    def cname(self, name: str, target: str) -> None:
        """Make an alias; the answer includes the target's addresses if they are in the zone."""
        self._set(name, rcode="NOERROR", target=target)

    def nxdomain(self, name: str) -> None:
        self._set(name, rcode="NXDOMAIN")

    def no_data(self, name: str) -> None:
        """Let the name exist without an address of any family."""
        self._rules[_key(name)] = Rule()

    def servfail(self, name: str) -> None:
        self._set(name, rcode="SERVFAIL")

    def refused(self, name: str) -> None:
        self._set(name, rcode="REFUSED")

    def silent(self, name: str, *types: str) -> None:
        """Do not answer queries of these types; of none without types. Some load balancers ignore AAAA queries."""
        self._set(name, silent=frozenset(types or {"A", "AAAA", "CNAME", "MX", "TXT", "ANY"}))

    def delay(self, name: str, seconds: float) -> None:
        self._set(name, delay=seconds)

    def forged(self, name: str, how: Literal["name", "id"] = "name") -> None:
        """Answer with FORGED addresses, under another name or another id, which a resolver must ignore."""
        self._set(name, forged=how)

    def truncated(self, name: str) -> None:
        """Answer over UDP with the TC flag only, and over TCP in full."""
        self._set(name, truncated=True)

    def drop_edns(self, name: str) -> None:
        """Do not answer queries that use EDNS, as some old servers and firewalls do."""
        self._set(name, drops_edns=True)

    def _set(self, name: str, **changes: Any) -> Rule:
        rule = self._rules.setdefault(_key(name), Rule())
        for key, value in changes.items():
            setattr(rule, key, value)
        return rule

    def _rule(self, name: str) -> Rule:
        zones = [name.split(".", n)[n] for n in range(1, name.count(".") + 1)]
        found = (self._rules.get(key) for key in (_key(name), *(f"*.{zone}" for zone in zones)))
        return next((rule for rule in found if rule), Rule(rcode="NXDOMAIN"))

    # --- Start and stop ---

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        while True:
            self._listener = socket.create_server((self.host, self._wanted), family=family)
            self.port = self._listener.getsockname()[1]
            try:
                self._datagrams, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=(self.host, self.port)
                )
            except OSError:  # the port is in use for UDP: try another
                self._listener.close()
                if self._wanted:
                    raise
            else:
                self._listener.setblocking(False)
                loop.add_reader(self._listener, self._accept)
                return self

    async def __aexit__(self, *exception: object) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._datagrams.abort()
        await cancel_and_wait(*self.tasks)
        await asyncio.sleep(0)  # the loop closes an aborted transport's socket in its next round
        if self._errors and exception[0] is None:
            raise self._errors[0]

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        def done(task: asyncio.Task[None]) -> None:
            self.tasks.discard(task)
            if not task.cancelled() and (error := task.exception()):
                self._errors.append(error)

        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(done)
        return task

    # --- Queries and answers ---

    async def _datagram(self, packet: bytes, peer: tuple[str | Any, int]) -> None:
        if reply := await self._reply(packet, over_udp=True):
            self._datagrams.sendto(reply, peer)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        self._start(self._stream(ServerConnection(sock, None))).add_done_callback(lambda _: sock.close())

    async def _stream(self, connection: ServerConnection) -> None:
        reader = connection.reader
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(connection.fill_reader())  # ends the group when the client leaves
                while True:
                    packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                    if reply := await self._reply(packet, over_udp=False):
                        await connection.send(len(reply).to_bytes(2) + reply)
        except* (OSError, EOFError):
            pass

    async def _reply(self, packet: bytes, *, over_udp: bool) -> bytes | None:
        """Return the answer to a packet; None for no answer."""
        try:
            query = DNSRecord.parse(packet)
        except DNSError:
            return None
        name, kind = _key(str(query.q.qname)), str(QTYPE[query.q.qtype])
        self.queries.append((name, kind))
        rule = self._rule(name)
        if kind in rule.silent or (rule.drops_edns and any(record.rtype == QTYPE.OPT for record in query.ar)):
            return None
        await asyncio.sleep(rule.delay)
        reply = query.reply()
        reply.header.rcode = getattr(RCODE, rule.rcode)
        if rule.forged:
            self._forge(reply, kind, rule.forged)
        elif rule.truncated and over_udp:
            reply.header.tc = 1
        elif rule.rcode == "NOERROR":
            self._answer(reply, str(query.q.qname), kind)
        return bytes(reply.pack())

    def _answer(self, reply: DNSRecord, name: str, kind: str) -> None:
        """Add the records of a name, following its aliases."""
        for _ in range(8):  # a chain may be a loop
            rule = self._rule(_key(name))
            if rule.target is None:
                break
            reply.add_answer(RR(name, QTYPE.CNAME, rdata=CNAME(rule.target), ttl=rule.ttl))
            name = rule.target
        addresses = rule.addresses.get(kind, deque())
        for address in list(addresses)[: 1 if rule.rotating else None]:
            reply.add_answer(RR(name, getattr(QTYPE, kind), rdata=RDMAP[kind](address), ttl=rule.ttl))
        if rule.rotating:
            addresses.rotate(-1)

    @staticmethod
    def _forge(reply: DNSRecord, kind: str, how: Literal["name", "id"]) -> None:
        name = reply.q.qname
        if how == "id":
            reply.header.id ^= 0xFFFF
        else:
            name = reply.q.qname = DNSLabel("forged.invalid")
        if kind in FORGED:
            reply.add_answer(RR(name, getattr(QTYPE, kind), rdata=RDMAP[kind](FORGED[kind]), ttl=60))


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, names: DnsServer) -> None:
        self._names = names

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._names._start(self._names._datagram(data, addr))


def _key(name: str) -> str:
    return name.lower().removesuffix(".")
