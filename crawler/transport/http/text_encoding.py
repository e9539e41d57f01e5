"""Decode text as browsers do.

The labels of encodings are those of https://encoding.spec.whatwg.org/#names-and-labels. Python's codecs decode the
text, and this module corrects them where they differ from that standard. The encoding of an HTML document is detected
as in https://html.spec.whatwg.org/#determining-the-character-encoding, without the last step, in which some browsers
guess it from the bytes.
"""

import codecs
import re
from typing import Final

__all__ = ["decode", "find_codec", "sniff_codec"]

# Python's codecs, or names of the standard that `decode` handles itself, each with its labels.
_LABELS: Final = {
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
    "cp866": "866 cp866 csibm866 ibm866",
    "iso8859-2": "csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2",
    "iso8859-3": "csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3",
    "iso8859-4": "csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4",
    "iso8859-5": "csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988",
    "iso8859-6": (
        "arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 iso-8859-6-e iso-8859-6-i "
        "iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987"
    ),
    "iso8859-7": (
        "csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7 iso88597 iso_8859-7 "
        "iso_8859-7:1987 sun_eu_greek"
    ),
    "iso8859-8": (
        "csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138 iso8859-8 iso88598 iso_8859-8 "
        "iso_8859-8:1988 visual csiso88598i iso-8859-8-i logical"
    ),
    "iso8859-10": "csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6",
    "iso8859-13": "iso-8859-13 iso8859-13 iso885913",
    "iso8859-14": "iso-8859-14 iso8859-14 iso885914",
    "iso8859-15": "csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9",
    "iso8859-16": "iso-8859-16",
    "koi8-r": "cskoi8r koi koi8 koi8-r koi8_r",
    "koi8-u": "koi8-ru koi8-u",
    "mac-roman": "csmacintosh mac macintosh x-mac-roman",
    "cp874": "dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874",
    "cp1250": "cp1250 windows-1250 x-cp1250",
    "cp1251": "cp1251 windows-1251 x-cp1251",
    "cp1252": (
        "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 iso_8859-1 "
        "iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252"
    ),
    "cp1253": "cp1253 windows-1253 x-cp1253",
    "cp1254": (
        "cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5 "
        "windows-1254 x-cp1254"
    ),
    "cp1255": "cp1255 windows-1255 x-cp1255",
    "cp1256": "cp1256 windows-1256 x-cp1256",
    "cp1257": "cp1257 windows-1257 x-cp1257",
    "cp1258": "cp1258 windows-1258 x-cp1258",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "gb18030": "chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk gb18030",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "euc-jp": "cseucpkdfmtjapanese euc-jp x-euc-jp",
    "iso2022-jp-ext": "csiso2022jp iso-2022-jp",
    "cp932": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
    "cp949": (
        "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 windows-949"
    ),
    "replacement": "csiso2022kr hz-gb-2312 iso-2022-cn iso-2022-cn-ext iso-2022-kr replacement",
    "utf-16-be": "unicodefffe utf-16be",
    "utf-16-le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
    "x-user-defined": "x-user-defined",
}
_CODECS: Final = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}

_DEFAULT_CODEC: Final = "cp1252"  # for documents that declare none
_BYTE_ORDER_MARKS: Final = {b"\xef\xbb\xbf": "utf-8", b"\xfe\xff": "utf-16-be", b"\xff\xfe": "utf-16-le"}
_MAX_SNIFFED_BYTES: Final = 64 * 1024  # browsers look for a meta element in the whole head

_CHARSET_PARAMETER = re.compile(r";[ \t]*charset=[ \t]*(?:\"([^\"]*)\"|([^;\s]*))", re.IGNORECASE)
_XML_DECLARATION = re.compile(rb"<\?xml[^>]*?\sencoding\s*=\s*[\"']\s*([A-Za-z][\w.-]*)", re.IGNORECASE)
# The markup that a search for meta elements has to skip or read: comments, elements that contain only text, tags.
_MARKUP = re.compile(
    rb"<!--(?:.*?-->|.*)|<(script|style|title|textarea|noscript)(?=[\s/>])(?:.*?</\1|.*)"
    rb"|<(?P<meta>meta)(?=[\s/])|<[!/?][^>]*+|<[a-z]",
    re.IGNORECASE | re.DOTALL,
)
_TAG_NAME = re.compile(rb"[^\s/>]*+")
_ATTRIBUTE = re.compile(rb"[\s/]*+([^\s/>=][^\s/>=]*+)(?:\s*+=\s*+(?:\"([^\"]*+)\"?|'([^']*+)'?|([^\s>]*+)))?")
_CONTENT_CHARSET = re.compile(rb"charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.IGNORECASE)

_MAX_CORRECTED_BYTES: Final = 1000  # that Python's codec cannot decode; a document with more is not text
_USER_DEFINED: Final = "".join(map(chr, [*range(0x80), *range(0xF780, 0xF800)]))
# Characters that the standard's EUC-JP and KOI8-U have in place of those of Python's codecs.
_REPLACED_CHARACTERS: Final = {
    "euc-jp": str.maketrans("\u301c\u2016\u2212\xa2\xa3\xac", "\uff5e\u2225\uff0d\uffe0\uffe1\uffe2"),
    "koi8-u": str.maketrans("\u255d\u256c", "\u045e\u040e"),
}


def find_codec(label: str) -> str | None:
    """Return the codec of a label, in any case; None for an unknown one."""
    return _CODECS.get(label.strip(" \t\r\n\f").lower())


def sniff_codec(data: bytes | bytearray, content_type: str) -> str:
    """Return the codec of a document: by its byte order mark, Content-Type, or own declaration, or the default."""
    for mark, codec in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return codec
    named = _CHARSET_PARAMETER.search(content_type)
    if named and (found := find_codec(named[1] if named[1] is not None else named[2])):
        return found
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.endswith(("/json", "+json")):
        return "utf-8"
    start = bytes(data[:_MAX_SNIFFED_BYTES])
    declared = _XML_DECLARATION.match(start.lstrip())
    if declared is not None:
        found = find_codec(declared[1].decode("latin-1"))
    elif media_type.endswith(("/xml", "+xml")):
        return "utf-8"
    elif media_type in ("", "text/html"):
        found = _find_meta_codec(start)
    else:
        found = None
    return _correct_declared_codec(found) if found else _DEFAULT_CODEC


def decode(data: bytes | bytearray, codec: str) -> str:
    """Decode bytes, without their byte order mark; invalid bytes become U+FFFD.

    The text has no lone surrogates, so it can always be encoded again.
    """
    if codec == "replacement":  # the standard decodes none of these encodings, because they can hide markup
        return "\ufffd" if data else ""
    for mark, marked in _BYTE_ORDER_MARKS.items():
        if marked == codec and data.startswith(mark):
            data = data[len(mark) :]
    if codec == "x-user-defined":
        return data.decode("latin-1").translate(_USER_DEFINED)
    text = data.decode(codec, "replace")
    if not codec.startswith("utf-") and 0 < text.count("\ufffd") <= _MAX_CORRECTED_BYTES:
        text = data.decode(codec, _ERROR_HANDLER)
    return text.translate(_REPLACED_CHARACTERS[codec]) if codec in _REPLACED_CHARACTERS else text


def _find_meta_codec(document: bytes) -> str | None:
    """Return the codec that a meta element declares."""
    position = 0
    while (markup := _MARKUP.search(document, position)) is not None:
        position = markup.end()
        if not markup[0][1:2].isalpha() or markup[1]:
            continue
        attributes: dict[bytes, bytes] = {}
        if not markup["meta"]:
            position = _skip_name(document, position)
        while (attribute := _ATTRIBUTE.match(document, position)) is not None:
            position = attribute.end()
            value = next((value for value in attribute.groups()[1:] if value is not None), b"")
            attributes.setdefault(attribute[1].lower(), value)
        if markup["meta"] and (codec := _codec_of_meta(attributes)):
            return codec
    return None


def _skip_name(document: bytes, position: int) -> int:
    name = _TAG_NAME.match(document, position)
    return name.end() if name else position


def _codec_of_meta(attributes: dict[bytes, bytes]) -> str | None:
    label = attributes.get(b"charset")
    if label is None and attributes.get(b"http-equiv", b"").lower() == b"content-type":
        found = _CONTENT_CHARSET.search(attributes.get(b"content", b""))
        label = next((value for value in found.groups() if value is not None), None) if found else None
    return find_codec(label.decode("latin-1")) if label is not None else None


def _correct_declared_codec(codec: str) -> str:
    """Replace a declaration that cannot be true: a document whose declaration reads as ASCII is not UTF-16."""
    return {"utf-16-be": "utf-8", "utf-16-le": "utf-8", "x-user-defined": _DEFAULT_CODEC}.get(codec, codec)


def _decode_unknown_bytes(error: UnicodeError) -> tuple[str, int]:
    """Decode bytes that the standard's encoding has and Python's codec has not."""
    assert isinstance(error, UnicodeDecodeError)
    byte, start = error.object[error.start], error.start
    if error.encoding == "gb18030" and byte == 0x80:
        return "\u20ac", start + 1
    if error.encoding in ("euc_jp", "euc-jp") and 0xA1 <= byte <= 0xFE and len(error.object) > start + 1:
        row, cell = byte - 0xA0, error.object[start + 1] - 0xA0
        if 1 <= cell <= 94:
            lead = (row - 1) // 2 + (0x81 if row <= 62 else 0xC1)
            trail = cell + 0x9E if row % 2 == 0 else cell + (0x3F if cell <= 63 else 0x40)
            return bytes([lead, trail]).decode("cp932", "replace")[:1], start + 2
    if error.encoding == "charmap" and byte < 0xA0:
        return chr(byte), start + 1
    return "\ufffd", max(error.end, start + 1)


_ERROR_HANDLER: Final = "crawler-web"
codecs.register_error(_ERROR_HANDLER, _decode_unknown_bytes)
