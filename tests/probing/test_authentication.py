"""User name and password of a URL: when they are sent, how, and to whom. Witness: Chromium 156, RFC 7616, RFC 7617."""

from collections.abc import Sequence

import pytest

from crawler.core.urls import Url, parse_url
from crawler.probing.authentication import authorization, parse_challenge
from tests.support.exchange import Exchange
from tests.support.probing import probe_one, status_of
from tests.support.site import Site

USER = "jo\u00e9:p%3Aw"  # as in the run of Chromium that gave the values below

RFC_7616 = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)


def parsed(text: str) -> Url:
    url = parse_url(text)
    assert isinstance(url, Url)
    return url


def answer(challenge: str, url: str, method: str = "GET", client_nonce: str | None = None) -> str:
    found = parse_challenge(challenge)
    assert found is not None
    return authorization(found, parsed(url), method, client_nonce)


def protect(site: Site, path: str, challenges: Sequence[str], *, after: Sequence[str] = ()) -> None:
    """Answer a request without Authorization with these challenges, and the first ones with it with those `after`."""
    again = list(after)

    async def handle(x: Exchange) -> None:
        if not x.request.header("Authorization"):
            await x.reply(401, [("WWW-Authenticate", each) for each in challenges])
        elif again:
            await x.reply(401, [("WWW-Authenticate", again.pop(0))])
        else:
            await x.reply()

    site.on(path, handle)


def sent(site: Site) -> list[str]:
    """Return the scheme of each request's credentials, and the nonce."""
    found = [request.header("Authorization") for request in site.requests]
    return [f"{each.partition(' ')[0]} {each.partition(chr(34) + ', nonce=')[2][1:4]}".strip() for each in found]


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_example_of_rfc_7616(algorithm: str, response: str) -> None:
    """RFC 7616, 3.9.1."""
    url = "http://Mufasa:Circle%20of%20Life@www.example.org/dir/index.html"
    nonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    value = answer(RFC_7616.format(algorithm), url, client_nonce=nonce)
    assert f'response="{response}"' in value
    assert 'username="Mufasa"' in value
    assert 'uri="/dir/index.html"' in value
    assert 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"' in value


@pytest.mark.parametrize(
    ("challenge", "client_nonce", "value"),
    [
        (
            'realm="x", nonce="abc"',
            "",
            'realm="x", nonce="abc", uri="/x?q=1", response="325bf53c8c1eb271df17e5a0a36b053c"',
        ),
        (
            'realm="x", nonce="abc", qop="auth-int"',
            "",
            'realm="x", nonce="abc", uri="/x?q=1", response="325bf53c8c1eb271df17e5a0a36b053c"',
        ),
        (
            'realm="x", nonce="abc", qop="auth", opaque="o", algorithm=MD5',
            "1a9f4feb71ef5fe1",
            'realm="x", nonce="abc", uri="/x?q=1", algorithm=MD5, response="9aba42ddeb6bf38c920eb81b6f2f9934", '
            'opaque="o", qop=auth, nc=00000001, cnonce="1a9f4feb71ef5fe1"',
        ),
        (
            'realm="x", nonce="abc", qop="auth", algorithm=MD5-sess',
            "cbb9e570c5d0dd7f",
            'realm="x", nonce="abc", uri="/x?q=1", algorithm=MD5-sess, response="d1ecea6ebbb5502ca9ca365dc0c30199", '
            'qop=auth, nc=00000001, cnonce="cbb9e570c5d0dd7f"',
        ),
        (
            'realm="x", nonce="abc", qop="auth", algorithm=SHA-256-sess',
            "0ddb66259f78c629",
            'realm="x", nonce="abc", uri="/x?q=1", algorithm=SHA-256-sess, '
            'response="2a865e7b390c9326f956e7471b6b0beddca236738f43c47715f4486aa6c663dd", '
            'qop=auth, nc=00000001, cnonce="0ddb66259f78c629"',
        ),
        (
            "realm=x, nonce=abc, qop=auth",
            "895ede5319b16c52",
            'realm="x", nonce="abc", uri="/x?q=1", response="e26673e0d13acdf71f04bdafc9028981", '
            'qop=auth, nc=00000001, cnonce="895ede5319b16c52"',
        ),
        (
            'nonce="abc"',
            "",
            'realm="", nonce="abc", uri="/x?q=1", response="67e393684cfd2680997df2c9d31248da"',
        ),
        (
            r'realm="a\"b, c", nonce="a\\bc==", qop="auth", stale=false',
            "052dafc24ed1430e",
            r'realm="a\"b, c", nonce="a\\bc==", uri="/x?q=1", response="4fff2980489a5a3bfc2be7c8df80a52f", '
            'qop=auth, nc=00000001, cnonce="052dafc24ed1430e"',
        ),
    ],
)
def test_digest_is_that_of_chromium(challenge: str, client_nonce: str, value: str) -> None:
    """What Chromium 156 sent to a server with these challenges."""
    user = "jo\u00e9".encode().decode("latin-1")
    answered = answer(f"Digest {challenge}", f"http://{USER}@127.0.0.1/x?q=1", client_nonce=client_nonce)
    assert answered == f'Digest username="{user}", {value}'


def test_a_user_name_can_be_hashed() -> None:
    """RFC 7616, 3.4.4; the value is Chromium's."""
    challenge = 'Digest realm="x", nonce="abc", qop="auth", algorithm=SHA-256, userhash=true'
    value = answer(challenge, f"http://{USER}@127.0.0.1/x?q=1", client_nonce="4f1e2e927183a02f")
    assert 'username="63e9207c58fb20606a81fc958aa4565924ecd146889527774a8763a12c652ff0"' in value
    assert 'response="b485812ced814a9d8418eb25a55e0a4e8bf06432a82ff4e927107e54e61ff789"' in value
    assert value.endswith(", userhash=true")


@pytest.mark.parametrize(
    ("challenges", "scheme"),
    [
        (["Basic realm=x"], "Basic"),
        (["basic"], "Basic"),
        (["Basic realm=x", "Digest realm=x, nonce=abc, qop=auth"], "Digest"),
        (['Basic realm="x", Digest realm="x", nonce="abc", qop="auth"'], "Basic"),
        (["Digest realm=x, nonce=abc, algorithm=SHA-512-256", "Basic realm=x"], "Basic"),
        (["Negotiate", "Bearer realm=x", "Basic realm=x"], "Basic"),
        (["Digest realm=x"], None),
        (["Digest realm=x, nonce=abc, qop=auth, algorithm=SHA-512-256"], None),
        (["Bearer realm=x"], None),
        ([], None),
    ],
)
async def test_credentials_are_sent_when_the_server_asks_for_them(
    challenges: list[str], scheme: str | None, site: Site
) -> None:
    """Chromium: first without; 401 is the result where it knows no scheme (it also knows NTLM)."""
    protect(site, "/in", challenges)
    result = await probe_one(site.url("/in").replace("://", "://me:secret@"), method="GET")
    assert [each.partition(" ")[0] for each in sent(site)] == (["", scheme] if scheme else [""])
    assert status_of(result) == (200 if scheme else 401)
    assert [hop.status for hop in result.hops] == ([401, 200] if scheme else [401])
    assert "secret" not in f"{result.final_url} {result.hops}"


async def test_a_server_that_takes_no_credentials_gets_none(site: Site) -> None:
    """S3 answers 400 to an Authorization that it did not ask for. Chromium opens such a URL."""

    async def handle(x: Exchange) -> None:
        await x.reply(400 if x.request.header("Authorization") else 200)

    site.on("/open", handle)
    assert status_of(await probe_one(site.url("/open").replace("://", "://me:secret@"))) == 200


@pytest.mark.parametrize(
    ("after", "nonces", "status"),
    [
        (["Digest realm=x, nonce=def, qop=auth, stale=true"], ["", "Digest abc", "Digest def"], 200),
        (["Digest realm=x, nonce=def, qop=auth, stale=TRUE"], ["", "Digest abc", "Digest def"], 200),
        (["Digest realm=x, nonce=def, qop=auth"], ["", "Digest abc"], 401),
        (["Basic realm=y"], ["", "Digest abc"], 401),
        (["Digest realm=x, nonce=def, stale=true"] * 9, ["", "Digest abc", "Digest def", "Digest def"], 401),
    ],
)
async def test_refused_credentials_are_sent_again_for_a_stale_nonce_only(
    after: list[str], nonces: list[str], status: int, site: Site
) -> None:
    """Chromium: the same requests, but for the bound of the last one (RFC 7616, 3.3: stale)."""
    protect(site, "/in", ["Digest realm=x, nonce=abc, qop=auth"], after=after)
    result = await probe_one(site.url("/in").replace("://", "://me:secret@"), method="GET")
    assert status_of(result) == status
    assert sent(site) == nonces


async def test_head_and_get_answer_each_their_own_challenge(site: Site) -> None:
    """Digest hashes the method. Chromium sends GET alone."""

    async def handle(x: Exchange) -> None:
        given = x.request.header("Authorization")
        if not given:
            await x.reply(401, [("WWW-Authenticate", "Digest realm=x, nonce=abc")])
            return
        expected = answer("Digest realm=x, nonce=abc", "http://me:secret@a.test/in", x.request.method)
        await x.reply(200 if given == expected and x.request.method == "GET" else 404)

    site.on("/in", handle)
    result = await probe_one(site.url("/in").replace("://", "://me:secret@"))
    assert [(hop.method, hop.status) for hop in result.hops] == [
        ("HEAD", 401),
        ("HEAD", 404),
        ("GET", 401),
        ("GET", 200),
    ]


async def test_a_cookie_that_comes_with_the_challenge_goes_back(site: Site) -> None:
    """Chromium sends it with the credentials."""

    async def handle(x: Exchange) -> None:
        if x.request.header("Cookie") == "s=1" and x.request.header("Authorization"):
            await x.reply()
        else:
            await x.reply(401, [("WWW-Authenticate", "Basic"), ("Set-Cookie", "s=1")])

    site.on("/in", handle)
    assert status_of(await probe_one(site.url("/in").replace("://", "://me:secret@"))) == 200


async def test_credentials_stay_with_their_origin(site: Site) -> None:
    """Chromium: they are for later URLs of the origin too, also for the first that asks; for no other host."""
    protect(site, "/in", ["Basic"])
    site.on("/start", b"HTTP/1.1 302 Found\r\nLocation: /in\r\nContent-Length: 0\r\n\r\n")
    assert status_of(await probe_one(site.url("/start").replace("://", "://me:secret@"))) == 200
    async with Site() as other:
        protect(other, "/in", ["Basic"])
        away = site.redirect_to(other.url("/in")).replace("://", "://me:secret@")
        assert status_of(await probe_one(away)) == 401
        assert {request.header("Authorization") for request in other.requests} == {""}


@pytest.mark.parametrize(("is_asked_before", "status"), [(True, 200), (False, 401)])
async def test_the_way_back_from_another_host(is_asked_before: bool, status: int, site: Site) -> None:
    """Chromium remembers an origin that has asked for credentials, and no other. This is how a sign-in by SSO goes."""
    protect(site, "/in", ["Basic"])
    async with Site() as other:
        back = other.redirect_to(site.url("/in"))

        async def leave(x: Exchange) -> None:
            if is_asked_before and not x.request.header("Authorization"):
                await x.reply(401, [("WWW-Authenticate", "Basic")])
            else:
                await x.reply(302, [("Location", back)])

        site.on("/out", leave)
        assert status_of(await probe_one(site.url("/out").replace("://", "://me:secret@"))) == status


async def test_a_given_authorization_is_sent_at_once_and_alone(site: Site) -> None:
    """As in curl 7.88 with -H and user information in the URL."""
    protect(site, "/in", ["Basic"], after=["Basic", "Basic"])
    url = site.url("/in").replace("://", "://me:secret@")
    assert status_of(await probe_one(url, headers={"authorization": "Mine"}, method="GET")) == 401
    assert sent(site) == ["Mine"]
