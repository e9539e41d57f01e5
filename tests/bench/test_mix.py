"""The lists of W8 and W9: what is in them, and that what they say of each URL is true.

The witness of the truth is curl, and dnslib for names. Neither shares code with the servers, the lists or this prober.
"""

import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from dnslib import RCODE, DNSRecord

import crawler
from bench.kinds import TRUTHS, Kind
from bench.mix import SHARES, kept_urls, mixed_urls
from bench.world import World

CURL_SAYS: dict[Kind, tuple[int, int, int]] = {  # status, exit code, redirects
    "secure": (200, 0, 0),
    "moved": (200, 0, 1),
    "plain": (200, 0, 0),
    "slow": (200, 0, 0),
    "missing": (404, 0, 0),
    "refused": (0, 7, 0),  # could not connect
    "reset": (0, 35, 0),  # TLS handshake failed
    "expired": (0, 60, 0),  # certificate not accepted
}
ERRORS: dict[Kind, str] = {
    "refused": "tcp.refused",
    "absent": "dns.name_not_resolved",
    "reset": "tcp.reset",
    "expired": "tls.cert.date_invalid",
}


def ask_curl(world: World, url: str, folder: Path) -> list[str]:
    """Return the status, the exit code, the number of redirects, and the seconds."""
    command = ["curl", "--disable", "--silent", "--head", "--location", "--noproxy", "*", "--max-time", "20"]
    command += ["--connect-to", "::127.0.0.9:", "--cacert", str(world.cafile), "--output", str(folder / "head")]
    form = "%{http_code} %{exitcode} %{num_redirects} %{time_total}"
    return subprocess.run([*command, "--write-out", form, url], capture_output=True, text=True).stdout.split()


def pages_of_hosts(world: World, kind: Kind) -> list[int]:
    """Return how many URLs each host of a kind has, in no order."""
    urls = [url for url, its in mixed_urls(world, 10_000) if its == kind]
    return list(Counter(urlsplit(url).hostname for url in urls).values())


@pytest.mark.parametrize("kind", CURL_SAYS)
def test_curl_finds_what_the_list_says(world: World, tmp_path: Path, kind: Kind) -> None:
    urls = [url for url, its in mixed_urls(world, 1000) if its == kind]
    for url in urls[:3]:
        status, code, redirects, _ = ask_curl(world, url, tmp_path)
        assert (int(status), int(code), int(redirects)) == CURL_SAYS[kind], url
        assert int(status) == TRUTHS[kind].status


def test_only_the_hosts_that_exist_have_an_address(world: World) -> None:
    """The witness is dnslib."""
    for url, kind in mixed_urls(world, 200):
        question = DNSRecord.question(urlsplit(url).hostname)
        answer = DNSRecord.parse(question.send("127.0.0.1", world.dns, timeout=20))
        assert answer.header.rcode == (RCODE.NXDOMAIN if kind == "absent" else RCODE.NOERROR)
        assert [str(record.rdata).split(".")[0] for record in answer.rr] == ([] if kind == "absent" else ["127"])


def test_slow_hosts_take_one_two_or_three_seconds(world: World, tmp_path: Path) -> None:
    by_port = {urlsplit(url).port: url for url, kind in mixed_urls(world, 1000) if kind == "slow"}
    assert by_port.keys() == set(world.seconds)
    for number, port in enumerate(world.seconds):
        assert number + 1 <= float(ask_curl(world, by_port[port], tmp_path)[3])


def test_every_kind_has_its_share(world: World) -> None:
    counts = Counter(kind for _, kind in mixed_urls(world, 10_000))
    assert counts == {kind: round(10_000 * share) for kind, share in SHARES.items()}
    assert counts.total() == 10_000
    assert CURL_SAYS.keys() | {"absent"} == SHARES.keys()


def test_most_hosts_have_one_url_and_some_have_many(world: World) -> None:
    sizes = sorted(pages_of_hosts(world, "secure"))
    assert sizes.count(1) > len(sizes) / 2
    assert sizes[-1] > 50
    assert sum(sizes[-len(sizes) // 10 :]) > sum(sizes) / 2  # a tenth of the hosts has more than half of the URLs


@pytest.mark.parametrize("kind", SHARES)
def test_no_host_has_more_than_a_twentieth_of_its_kind(world: World, kind: Kind) -> None:
    sizes = pages_of_hosts(world, kind)
    assert max(sizes) <= sum(sizes) / 20


@pytest.mark.parametrize("make", [mixed_urls, kept_urls])
def test_a_seed_always_gives_the_same_list(
    world: World, make: Callable[[World, int, int], Iterator[tuple[str, Kind]]]
) -> None:
    first, again, other = (list(make(world, 1000, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(dict(first)) == 1000


def test_kept_urls_are_shared_equally_by_200_hosts(world: World) -> None:
    hosts = Counter(urlsplit(url).hostname for url, _ in kept_urls(world, 2000))
    assert set(hosts.values()) == {10}
    assert len(hosts) == 200


@pytest.mark.parametrize(("port", "expected"), [("secure", False), ("tickets", True)])
def test_only_the_servers_that_shall_give_session_tickets_do(world: World, port: str, expected: bool) -> None:
    """Python's `ssl` is the witness."""
    context = ssl.create_default_context(cafile=world.cafile)
    with (
        socket.create_connection(("127.0.0.1", getattr(world, port))) as connection,
        context.wrap_socket(connection, server_hostname="a.bench.internal") as tls,
    ):
        tls.sendall(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while tls.recv(4096):
            pass
        assert tls.session is not None
        assert tls.session.has_ticket is expected


async def test_this_prober_is_right_and_names_the_reasons(world: World) -> None:
    expected = dict(mixed_urls(world, 200))
    found: dict[str, tuple[int, str | None]] = {}
    options: dict[str, Any] = {
        "dns": [f"127.0.0.1:{world.dns}"],
        "cafile": str(world.cafile),
        "ipv4": True,
        "retries": 0,
    }
    async for result in crawler.probe(expected, **options):
        found[result.url] = result.status or 0, result.error.type if result.error else None
    assert found == {url: (TRUTHS[kind].status, ERRORS.get(kind)) for url, kind in expected.items()}
