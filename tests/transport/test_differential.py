"""Two transports, one truth: our own and aiohttp's client agree on every behaviour, or the reason stands here."""

import pytest

from tests.probing.test_prober import VERDICTS
from tests.support.certs import Authority
from tests.support.probing import probe_one, verdict
from tests.support.site import Site

# What aiohttp's client says where it differs, and why ours is the better answer.
STRICT = "http.response.invalid"
DIFFERENCES: dict[str, tuple[int | str, str]] = {
    "/te-cl": (STRICT, "its parser refuses both framings at once; browsers take the transfer coding"),
    "/two-lengths": (STRICT, "its parser refuses a repeated length, though the two are equal"),
    "/space-name": (STRICT, "its parser refuses the whole head for one bad name"),
    "/no-colon": (STRICT, "its parser refuses the whole head for one line without a colon"),
    "/lowercase-proto": (STRICT, "its parser wants HTTP in capitals"),
    "/http09": (STRICT, "it calls every parser's error a bad response; ours tells what is not HTTP apart"),
    "/h2-preface": (STRICT, "as above"),
    "/garbage": (STRICT, "as above"),
    "/many-headers/10000": (STRICT, "it counts header lines; ours, as Chromium, counts bytes"),
    "/endless-1xx": ("http.timed_out", "it skips interim responses without end; ours after a hundred calls it a fault"),
    "/status/100": ("tcp.closed", "it takes the end of an interim response for the end of all"),
    "/head-body": (200, "HEAD with a body is an error to it, so GET decides; ours reads the head of the HEAD"),
}


@pytest.mark.parametrize("path", VERDICTS)
async def test_both_transports_agree_or_the_reason_is_written_down(path: str, site: Site) -> None:
    result = await probe_one(site.url(path), timeout=2, transport="aiohttp")
    expected = DIFFERENCES[path][0] if path in DIFFERENCES else VERDICTS[path][0]
    assert verdict(result) == expected, result


def test_no_difference_is_listed_that_is_none() -> None:
    assert [path for path, (said, _) in DIFFERENCES.items() if path not in VERDICTS or VERDICTS[path][0] == said] == [
        "/head-body"  # differs in the method alone
    ]


@pytest.mark.parametrize(
    "certificate",
    ["good", "expired", "not_yet_valid", "wrong_host", "self_signed", "unknown_ca", "missing_intermediate", "old_tls"],
)
async def test_both_transports_judge_certificates_alike(certificate: str, authority: Authority) -> None:
    async with Site(tls=getattr(authority, certificate)()) as site:
        verdicts = {
            verdict(
                await probe_one(site.url("/ok", host="localhost"), cafile=str(authority.cafile), transport=transport)
            )
            for transport in ("socket", "aiohttp")
        }
    assert len(verdicts) == 1


@pytest.mark.parametrize("transport", ["socket", "aiohttp"])
async def test_the_guard_stands_before_both(transport: str, site: Site) -> None:
    for url in (site.url("/ok"), site.url("/ok", host="localhost")):
        result = await probe_one(url, guard="public", transport=transport)
        assert (result.outcome, verdict(result)) == ("blocked", "address.blocked")
    assert site.connections == 0


@pytest.mark.parametrize("transport", ["socket", "aiohttp"])
async def test_a_redirect_does_not_lead_past_the_guard(transport: str, site: Site) -> None:
    async with Site(host="127.0.0.2") as inside:
        result = await probe_one(
            site.redirect_to(inside.url("/ok")), guard="public", allow=["127.0.0.1/32"], transport=transport
        )
        assert verdict(result) == "address.blocked"
        assert inside.connections == 0
    assert site.requests
