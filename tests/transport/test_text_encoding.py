"""Documents are decoded as in a browser: which encoding they have, and what its bytes mean.

The witness is Chromium 156, to which each document was served; the tables say which title it showed. Where nothing
names an encoding, Chromium guesses one; then the witness is the last step of the HTML standard, windows-1252. All
labels and all characters of one or two bytes were compared with Chromium's `TextDecoder`.
"""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.transport.http.text_encoding import decode, find_codec, sniff_codec

HTML = "text/html"
UMLAUT = "<title>F\u00fcnf</title>"
MOJIBAKE = "<title>F\u00c3\u00bcnf</title>"


def read(data: bytes, content_type: str = HTML) -> str:
    return decode(data, sniff_codec(data, content_type))


# --- Which encoding ---

HEADERS: dict[str, str] = {  # the charset in the header, and the codec of a document in which it works
    "utf8": "utf-8",
    "unicode-1-1-utf-8": "utf-8",
    '"utf-8"': "utf-8",
    " utf-8 ": "utf-8",
    "UTF-8;x": "utf-8",
    "latin1": "cp1252",
    "ISO-8859-1": "cp1252",
    "ascii": "cp1252",
    "windows-1252;charset=utf-8": "cp1252",
    "macintosh": "mac-roman",
    "x-mac-roman": "mac-roman",
    "utf-16": "utf-16-le",
    "utf-16be": "utf-16-be",
    "ucs-2": "utf-16-le",
    "unicodefffe": "utf-16-be",
}
UNKNOWN = ["klingon", "utf-7", "", "'utf-8'", "utf-32", "cp037", "idna", "rot13", "iso88591x", "undefined"]

METAS: dict[str, bool] = {  # whether it makes the document UTF-8
    "<meta charset=utf-8>": True,
    "<meta charset='utf-8'/>": True,
    '<META CHARSET = "UTF-8">': True,
    "<meta/charset=utf-8>": True,
    "<meta name=x charset=utf-8>": True,
    "<meta http-equiv=Content-Type content='text/html; charset=utf-8'>": True,
    "<meta content='text/html; charset=utf-8' http-equiv=content-type>": True,
    "<meta http-equiv=Content-Type content='text/html; charset = utf-8 ;'>": True,
    "<meta http-equiv=Content-Type content='charset=\"utf-8\"'>": True,
    "<meta http-equiv=Content-Type content='xcharset=utf-8'>": True,
    "<!-- <meta charset=latin1> --><meta charset=utf-8>": True,
    "<meta charset=klingon><meta charset=utf-8>": True,
    "<body><meta charset=utf-8>": True,
    "<head>" + " " * 3000 + "<meta charset=utf-8>": True,
    "<meta charset=utf-16>": True,  # it cannot be, or the element would not have been found
    "<meta charset=utf-16le>": True,
    "<?xml version='1.0' encoding='utf-8'?>": True,
    "<meta content='text/html; charset=utf-8'>": False,
    "<meta http-equiv=refresh content='charset=utf-8'>": False,
    "<!-- <meta charset=utf-8> -->": False,
    "<a title='<meta charset=utf-8>'>": False,
    "<script>'<meta charset=utf-8>'</script>": False,
    "<title><meta charset=utf-8></title>": False,
    "<metacharset=utf-8>": False,
    "<meta charset=x-user-defined>": False,
    "<meta charset": False,
    "": False,
}


@pytest.mark.parametrize("charset", HEADERS)
def test_the_header_names_the_encoding(charset: str) -> None:
    assert read(UMLAUT.encode(HEADERS[charset]), f"{HTML}; charset={charset}") == UMLAUT


@pytest.mark.parametrize("charset", UNKNOWN)
def test_an_unknown_name_in_the_header_is_ignored(charset: str) -> None:
    content_type = f"{HTML}; charset={charset}"
    assert read(UMLAUT.encode(), content_type) == MOJIBAKE
    assert UMLAUT in read(b"<meta charset=utf-8>" + UMLAUT.encode(), content_type)


@pytest.mark.parametrize("meta", METAS)
def test_a_page_names_its_encoding_itself(meta: str) -> None:
    assert read((meta + UMLAUT).encode()) == meta + (UMLAUT if METAS[meta] else MOJIBAKE)


def test_a_byte_order_mark_comes_first_then_the_header_then_the_page() -> None:
    for codec, mark in {"utf-8": b"\xef\xbb\xbf", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.items():
        assert read(mark + UMLAUT.encode(codec), f"{HTML}; charset=koi8-r") == UMLAUT
    page = "<meta charset=utf-8>" + UMLAUT
    assert read(page.encode("cp1252"), f"{HTML}; charset=latin1") == page


@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("", MOJIBAKE),
        ("text/plain", MOJIBAKE),
        ("application/json", UMLAUT),  # RFC 8259, 8.1
        ("application/ld+json; x=y", UMLAUT),
        ("application/xhtml+xml", UMLAUT),  # XML 1.0, 4.3.3
        ("text/xml", UMLAUT),
    ],
)
def test_what_a_media_type_means_without_a_charset(content_type: str, text: str) -> None:
    assert read(UMLAUT.encode(), content_type) == text


def test_only_html_has_meta_elements() -> None:
    page = "<meta charset=koi8-r>" + UMLAUT
    assert read(page.encode(), "text/plain") == "<meta charset=koi8-r>" + MOJIBAKE
    assert read(page.encode(), "text/xml") == page
    assert read(b"<?xml version='1.0' encoding='latin1'?>" + b"\xfc", "text/xml")[-1] == "\u00fc"


# --- What its bytes mean ---

TEXTS: list[tuple[str, bytes, str]] = [
    ("gb2312", "你好 €".encode("gb18030"), "你好 €"),
    ("gbk", b"\x80", "€"),
    ("iso-ir-58", "你好".encode("gbk"), "你好"),
    ("big5", "你好".encode("big5"), "你好"),
    ("x-x-big5", "你好".encode("big5"), "你好"),
    ("euc-jp", "日本".encode("euc-jp"), "日本"),
    ("euc-jp", b"\xad\xa1\xa1\xc1\x8e\xb1\x8f\xb0\xa1", "①\uff5eｱ丂"),
    ("iso-2022-jp", "日本".encode("iso2022-jp"), "日本"),
    ("x-sjis", "日本①\uff5e".encode("cp932"), "日本①\uff5e"),
    ("windows-31j", "日本①".encode("cp932"), "日本①"),
    ("euc-kr", "안녕 똠".encode("cp949"), "안녕 똠"),
    ("ks_c_5601-1987", "안녕".encode("cp949"), "안녕"),
    ("koi8-u", "Привіт ґ".encode("koi8-u"), "Привіт ґ"),
    ("koi8-u", b"\xae\xbe", "ўЎ"),
    ("windows-1251", "Привет".encode("cp1251"), "Привет"),
    ("x-mac-cyrillic", "Привет".encode("mac-cyrillic"), "Привет"),
    ("iso-8859-8-i", "שלום".encode("iso8859-8"), "שלום"),
    ("visual", "שלום".encode("iso8859-8"), "שלום"),
    ("tis-620", "สวัสดี".encode("cp874"), "สวัสดี"),
    ("iso-8859-9", "ığ€".encode("cp1254"), "ığ€"),
    ("iso-8859-15", b"\xa4", "€"),
    ("sun_eu_greek", b"\xe1", "\u03b1"),
    ("latin1", b"a\x81b\x80\x9d", "a\x81b€\x9d"),
    ("x-user-defined", b"F\xfcnf", "F\uf7fcnf"),
    ("replacement", b"F\xfcnf", "\ufffd"),
    ("iso-2022-kr", b"F\xfcnf", "\ufffd"),
    ("hz-gb-2312", b"F\xfcnf", "\ufffd"),
    ("hz-gb-2312", b"", ""),
    ("utf-8", b"a\xffb\xc3", "a\ufffdb\ufffd"),
    ("utf-16le", b"\x00\xd8a\x00", "\ufffda"),
    ("utf-8", b"\xef\xbb\xbfa", "a"),
]


@pytest.mark.parametrize(("label", "data", "text"), TEXTS)
def test_bytes_are_decoded_as_by_a_browser(label: str, data: bytes, text: str) -> None:
    assert read(data, f"{HTML}; charset={label}") == text


LABELS = [
    "utf-8", "ibm866", "gbk", "big5", "euc-jp", "iso-2022-jp", "sjis", "euc-kr", "utf-16", "replacement", "koi8-u",
    "x-user-defined", "windows-1255", "windows-874", "iso-8859-6", "iso-8859-16", "x-mac-cyrillic",
]  # fmt: skip


@given(st.sampled_from(LABELS), st.binary(max_size=200))
def test_any_bytes_can_be_decoded_and_the_text_can_be_encoded(label: str, data: bytes) -> None:
    codec = find_codec(f" {label.upper()}\n")
    assert codec is not None
    msgspec.json.encode(decode(data, codec))


@given(st.binary(max_size=200), st.text(max_size=50))
def test_any_document_has_an_encoding(data: bytes, content_type: str) -> None:
    msgspec.json.encode(read(data, content_type))
    msgspec.json.encode(read(b"<meta " + data, content_type))


@pytest.mark.parametrize(
    "start",
    [
        b"<", b"<!--", b"<script ", b"<title>", b"<meta ", b"<meta a=", b'<a b="', b"<a b='c' ", b"<?xml ",
        b"<?xml encoding ", b"<meta http-equiv=content-type content='charset ", b"</", b"<a/", b"\xff",
        b"<meta charset= ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("label", ["", "utf-8", "euc-jp", "gbk", "iso-2022-jp"])
def test_no_document_is_slow(start: bytes, label: str) -> None:
    data = start * (2**20 // len(start))
    started = time.process_time()
    read(data, f"{HTML}; charset={label}")
    assert time.process_time() - started < 1
