"""Queries and responses as RFC 1035 lays them out. The other side is dnslib, which shares no code with this."""

import socket
from contextlib import suppress

import pytest
from aiodns.error import (
    ARES_EBADNAME,
    ARES_EBADRESP,
    ARES_ENODATA,
    ARES_ENOTFOUND,
    ARES_EREFUSED,
    ARES_ESERVFAIL,
    DNSError,
)
from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, TXT, A, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from crawler.transport.dns.messages import Addresses, Question, format_query, is_truncated, parse_response

GOOD = Question("www.good.test", socket.AF_INET)


def response(question: Question = GOOD, *records: RR, number: int = 7, rcode: str = "NOERROR") -> bytes:
    reply = DNSRecord.parse(format_query(number, question)).reply()
    reply.header.rcode = getattr(RCODE, rcode)
    reply.add_answer(*records)
    return bytes(reply.pack())


def record(kind: str, data: object, name: str = "www.good.test", ttl: int = 60) -> RR:
    return RR(name, getattr(QTYPE, kind), rdata=data, ttl=ttl)


def status(message: bytes, question: Question = GOOD) -> int:
    with pytest.raises(DNSError) as failure:
        parse_response(message, 7, question)
    return int(failure.value.args[0])


def test_a_query_asks_for_recursion_and_has_no_edns() -> None:
    """RFC 6891, 7: EDNS is what a requestor may add; glibc adds none unless `options edns0` is set."""
    query = DNSRecord.parse(format_query(0xABCD, Question("www.good.test.", socket.AF_INET6)))
    assert (query.header.id, query.header.rd, query.header.get_qr()) == (0xABCD, 1, 0)
    assert (str(query.q.qname), QTYPE[query.q.qtype]) == ("www.good.test.", "AAAA")
    assert query.ar == []


def test_the_addresses_of_an_answer_with_the_least_ttl() -> None:
    """dnslib compresses names as RFC 1035, 4.1.4, describes. An alias may expire before the address does."""
    message = response(
        GOOD,
        record("CNAME", CNAME("cdn.good.test"), ttl=5),
        record("A", A("192.0.2.1"), "cdn.good.test"),
        record("A", A("192.0.2.2"), "cdn.good.test", ttl=90),
        record("TXT", TXT("left aside"), "cdn.good.test"),
    )
    assert parse_response(message, 7, GOOD) == Addresses(["192.0.2.1", "192.0.2.2"], 5.0)
    question = Question("www.good.test", socket.AF_INET6)
    message = response(question, record("AAAA", AAAA("2001:db8::1")))
    assert parse_response(message, 7, question) == Addresses(["2001:db8::1"], 60.0)


@pytest.mark.parametrize(
    ("rcode", "expected"),
    [
        ("NOERROR", ARES_ENODATA),
        ("NXDOMAIN", ARES_ENOTFOUND),
        ("SERVFAIL", ARES_ESERVFAIL),
        ("REFUSED", ARES_EREFUSED),
        ("NOTAUTH", ARES_EBADRESP),
    ],
)
def test_a_response_without_address_says_why(rcode: str, expected: int) -> None:
    """RFC 2308, 1 and 2: NXDOMAIN, and NODATA, which is NOERROR without an answer of the type, are two things."""
    assert status(response(rcode=rcode)) == expected


def test_only_a_response_to_this_query_counts() -> None:
    """RFC 5452, 9.1: the id and the whole question have to match."""
    message = response(GOOD, record("A", A("192.0.2.66")))
    assert parse_response(message, 8, GOOD) is None
    assert parse_response(message, 7, Question("www.good.tesu", socket.AF_INET)) is None
    assert parse_response(message, 7, Question("www.good.test", socket.AF_INET6)) is None
    assert parse_response(format_query(7, GOOD), 7, GOOD) is None  # no response


def test_a_truncated_response_is_known() -> None:
    reply = DNSRecord.parse(format_query(7, GOOD)).reply()
    assert not is_truncated(bytes(reply.pack()))
    reply.header.tc = 1
    assert is_truncated(bytes(reply.pack()))
    assert not is_truncated(b"")


@pytest.mark.parametrize("host", ["a..test", f"{'a' * 64}.test", ""])
def test_a_name_that_dns_cannot_carry_is_said_to_be_one(host: str) -> None:
    """RFC 1035, 2.3.4: a label has 1 to 63 bytes."""
    with pytest.raises(DNSError) as failure:
        format_query(7, Question(host, socket.AF_INET))
    assert failure.value.args[0] == ARES_EBADNAME


def test_a_response_that_ends_early_is_malformed() -> None:
    message = response(GOOD, record("A", A("192.0.2.1")))
    start = len(format_query(7, GOOD))
    assert {status(message[:end]) for end in range(start, len(message))} == {ARES_EBADRESP}
    assert all(parse_response(message[:end], 7, GOOD) is None for end in range(start))


@given(st.binary(max_size=60), st.integers(0, 3))
def test_no_response_breaks_the_reader(rest: bytes, answers: int) -> None:
    """A server, or anybody who guesses the id, may send anything."""
    message = bytearray(response() + rest)
    message[7] = answers
    with suppress(DNSError):
        parse_response(bytes(message), 7, GOOD)
