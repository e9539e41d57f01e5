"""Lines as people have them: bare hosts, brackets, commas, characters that nobody sees. No URL is made of another."""

import pytest

from crawler.core.results import ProbeError
from crawler.core.urls import Target, Url


def url_of(text: str | bytes, scheme: str | None = "https") -> str | None:
    """The URL that is probed; None for an invalid line."""
    url = Target.of(0, text, scheme).url
    return url.href if isinstance(url, Url) else None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("example.org", "https://example.org/"),
        ("EXAMPLE.org/Path?q=http://a/#x", "https://example.org/Path?q=http://a/"),
        ("//example.org/a", "https://example.org/a"),
        ("//example", "https://example/"),
        ("localhost", "https://localhost/"),
        ("localhost:8080/x", "https://localhost:8080/x"),
        ("intranet:8080", "https://intranet:8080/"),
        ("example.org:80", "https://example.org:80/"),
        ("192.0.2.1/a", "https://192.0.2.1/a"),
        ("[2001:db8::1]:8080/a", "https://[2001:db8::1]:8080/a"),
        ("b\u00fccher.example", "https://xn--bcher-kva.example/"),
        ("example.org.", "https://example.org./"),
        ("example.org?q", "https://example.org/?q"),
        # with a scheme, or no host for certain
        ("http://example.org", "http://example.org/"),
        ("http:example.org", "http://example.org/"),
        ("mailto:a@example.org", None),
        ("ftp://example.org/", None),
        ("tel:+123", None),
        ("tel:123", None),
        ("javascript:alert(1)", None),
        ("user:pass@example.org", None),
        ("a@example.org", None),
        ("hello", None),
        ("/path/only.html", None),
        ("?q=example.org", None),
        ("#example.org", None),
        ("", None),
        ("...", None),
    ],
)
def test_a_line_without_a_scheme_gets_one_if_it_names_a_host(text: str, url: str | None) -> None:
    assert url_of(text) == url_of(text.encode()) == url
    assert Target.of(0, text, "https").text == text  # the record keeps it as written
    expected = None if url is None or not text.startswith("http") else url
    assert url_of(text, None) == expected


def test_another_scheme_can_be_chosen() -> None:
    assert url_of("example.org/a", "http") == "http://example.org/a"


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("<https://a.example/>", "https://a.example/"),
        ("<https://a.example/b,c>,", "https://a.example/b,c"),
        ("https://a.example/b, ", "https://a.example/b"),
        ("https://a.example/b,c", "https://a.example/b,c"),
        ("<a.example/>", "https://a.example/"),
        ("<https://a.example/", None),
        ("https://a.example/ b", None),
    ],
)
def test_marks_around_a_line_of_text_are_no_part_of_it(line: str, url: str | None) -> None:
    assert url_of(line.encode()) == url
    assert Target.of(0, line.encode(), "https").text == line


def test_in_other_formats_a_comma_belongs_to_the_url() -> None:
    """As in browsers."""
    assert url_of("https://a.example/b,") == "https://a.example/b,"


INVISIBLE = ["\u00a0", "\u200b", "\u200e", "\u2028", "\u202f", "\u2060", "\u3000", "\ufeff"]


@pytest.mark.parametrize("character", INVISIBLE)
def test_a_character_that_nobody_sees_is_cut_at_the_ends_and_named_inside(character: str) -> None:
    for text in (f"{character}http://a.example/{character}", f" {character} http://a.example/"):
        assert url_of(text) == url_of(text.encode()) == "http://a.example/"
    for text in (f"http://a.example/b{character}c", f"http://a{character}.example/", f"a{character}.example"):
        for line in (text, text.encode()):
            error = Target.of(0, line, "https").url
            assert isinstance(error, ProbeError)
            place = text.index(character) + 1
            assert error.message == f"the invisible character U+{ord(character):04X} at character {place}"
    assert url_of(f"http://a.example/#b{character}c") == "http://a.example/"  # a fragment is never sent
