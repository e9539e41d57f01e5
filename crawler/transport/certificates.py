"""What a certificate says of itself: read from its DER, and only what is reported.

Python's own decoder takes time for each of a certificate's names, of which there may be hundreds, and tells nothing of
a certificate that was not verified. Structure: RFC 5280, 4.1; encoding: X.690.
"""

import re
from calendar import timegm
from collections.abc import Iterator
from typing import Final

import msgspec

__all__ = ["Certificate", "CertificateError", "read_certificate"]

_SEQUENCE: Final = 0x30
_EXPLICIT_0: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERAL_TIME: Final = 0x18
_TIME = re.compile(r"[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])[0-5][0-9][0-6][0-9]Z")
# Of strings; all others are UTF-8 or ASCII.
_ENCODINGS: Final = {
    0x14: "latin-1",  # TeletexString, as everybody uses it
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}

_COMMON_NAME: Final = bytes.fromhex("550403")  # 2.5.4.3
_ORGANISATION: Final = bytes.fromhex("55040a")  # 2.5.4.10
_AUTHORITY_INFO: Final = bytes.fromhex("06082b06010505070101")  # 1.3.6.1.5.5.7.1.1, as an OBJECT IDENTIFIER
_CA_ISSUERS: Final = bytes.fromhex("06082b06010505073002")  # 1.3.6.1.5.5.7.48.2


class CertificateError(ValueError):
    """The bytes are no certificate."""


class Certificate(msgspec.Struct, frozen=True, gc=False):
    """Names are the common name, or failing that the organisation; `not_after` is in unix seconds.

    Attributes:
        names_its_issuer: Whether it says where its issuer's certificate can be had (RFC 5280, 4.2.2.1), as those of
            public authorities do: with it, a missing issuer is one that the server forgot to send.
    """

    issuer: str | None
    subject: str | None
    not_after: int
    names_its_issuer: bool


def read_certificate(der: bytes) -> Certificate:
    """Read a certificate.

    Raises:
        CertificateError: These bytes are no certificate.
    """
    try:
        [certificate] = _children(der, 0, len(der), 1)
        signed = next(_children(der, certificate[1], certificate[2]))
        fields = list(_children(der, signed[1], signed[2], 6))
        has_version = fields[0][0] == _EXPLICIT_0  # only the first version leaves it out
        _, _, issuer, validity, subject = fields[has_version : 5 + has_version]
        _, ends = _children(der, validity[1], validity[2])
        return Certificate(
            issuer=_name(der[issuer[1] : issuer[2]]),
            subject=_name(der[subject[1] : subject[2]]),
            not_after=_time(der, ends),
            names_its_issuer=_AUTHORITY_INFO in der and _CA_ISSUERS in der,
        )
    except (ValueError, IndexError, StopIteration, OverflowError) as error:
        raise CertificateError("not a certificate") from error


Element = tuple[int, int, int]  # tag, where its content begins, where it ends


def _children(der: bytes, start: int, end: int, most: int = 1_000) -> Iterator[Element]:
    """The elements between two positions, at most so many."""
    while start < end and most:
        tag, length = der[start], der[start + 1]
        start += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[start : start + size], "big")
            start += size
        if start + length > end:
            raise ValueError("an element ends behind its parent")
        yield tag, start, start + length
        start += length
        most -= 1


def _name(der: bytes) -> str | None:
    """The common name, or failing that the organisation."""
    found: dict[bytes, str] = {}
    for _, set_start, set_end in _children(der, 0, len(der)):
        for _, start, end in _children(der, set_start, set_end):
            kind, value = _children(der, start, end)
            encoding = _ENCODINGS.get(value[0], "utf-8")
            found[der[kind[1] : kind[2]]] = der[value[1] : value[2]].decode(encoding, "replace")
    return found.get(_COMMON_NAME) or found.get(_ORGANISATION)


def _time(der: bytes, element: Element) -> int:
    """Unix seconds of a time (RFC 5280, 4.1.2.5)."""
    tag, start, end = element
    text = der[start:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERAL_TIME:
        raise ValueError("not a time")
    if not _TIME.fullmatch(text):
        raise ValueError("not a time")
    return timegm((int(text[:4]), int(text[4:6]), int(text[6:8]), int(text[8:10]), int(text[10:12]), int(text[12:14])))
