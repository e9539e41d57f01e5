"""Our own transport and aiohttp's client agree on every behaviour, or the reason is written here."""

import pytest

from tests.support.aiohttp_oracle import probe_by_aiohttp
from tests.support.certs import Authority
from tests.support.expected_results import EXPECTED_RESULTS
from tests.support.probing import probe_one, status_of
from tests.support.site import Site

# The result of aiohttp's client where it differs, and why ours is better.
STRICT = "http.response.invalid"
DIFFERENCES: dict[str, tuple[int | str, str]] = {
    "/te-cl": (STRICT, "its parser refuses both framings together; browsers use the transfer coding"),
    "/two-lengths": (STRICT, "its parser refuses a repeated length, though the two are equal"),
    "/space-name": (STRICT, "its parser refuses the whole head for one bad name"),
    "/no-colon": (STRICT, "its parser refuses the whole head for one line without a colon"),
    "/lowercase-proto": (STRICT, "its parser accepts HTTP in capitals only"),
    "/http09": (STRICT, "every error of its parser is a bad response; ours tells other protocols apart"),
    "/h2-preface": (STRICT, "as above"),
    "/garbage": (STRICT, "as above"),
    "/many-headers/10000": (STRICT, "it limits header lines; ours limits bytes, as Chromium does"),
    "/endless-1xx": ("http.timed_out", "it skips interim responses without end; ours reports an error after a hundred"),
    "/status/101": (STRICT, "its parser refuses a change of protocol that it did not ask for; Chromium waits for more"),
    "/status/100": ("tcp.closed", "it takes an interim response for the final one"),
    "/cut-head": ("tcp.closed", "ours takes a head that ends with the stream over plain HTTP, as Chromium does"),
    "/head-body": (200, "HEAD with a body is an error for it, so GET decides; ours reads the response to HEAD"),
}


@pytest.mark.parametrize("path", EXPECTED_RESULTS)
async def test_both_agree_or_the_reason_is_written_down(path: str, site: Site) -> None:
    result = await probe_by_aiohttp(site.url(path), timeout=2)
    expected = DIFFERENCES[path][0] if path in DIFFERENCES else EXPECTED_RESULTS[path][0]
    assert status_of(result) == expected, result


def test_every_listed_difference_is_one() -> None:
    assert [
        path
        for path, (said, _) in DIFFERENCES.items()
        if path not in EXPECTED_RESULTS or EXPECTED_RESULTS[path][0] == said
    ] == [
        "/head-body"  # differs in the method alone
    ]


@pytest.mark.parametrize(
    "certificate",
    ["good", "expired", "not_yet_valid", "wrong_host", "self_signed", "unknown_ca", "missing_intermediate", "old_tls"],
)
async def test_both_agree_on_certificates(certificate: str, authority: Authority) -> None:
    async with Site(tls=getattr(authority, certificate)()) as site:
        url, options = site.url("/ok", host="localhost"), {"cafile": str(authority.cafile)}
        ours, theirs = await probe_one(url, **options), await probe_by_aiohttp(url, **options)
    assert status_of(ours) == status_of(theirs)
