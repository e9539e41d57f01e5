"""Parse the few fields of an X.509 certificate that results report, or that explain why a server was refused.

The parser is our own because every handshake needs it. CPU time for a certificate, on one core:

                        this module     cryptography
    1 name              10 us           16 us, with the issuer's URL 26 us
    500 names           12 us           with the issuer's URL 294 us
    import              -               38 ms

Python's `ssl` decodes only certificates that were verified.

Structure: RFC 5280, 4.1; encoding: X.690.
"""

import re
from calendar import timegm
from collections.abc import Iterator
from enum import IntFlag
from typing import Final

import msgspec

__all__ = [
    "Certificate",
    "CertificateError",
    "KeyUsage",
    "SubjectNames",
    "is_self_issued",
    "is_usable_authority",
    "parse_certificate",
    "parse_issuer_urls",
    "parse_key_usage",
    "parse_pkcs7_certificates",
    "parse_subject_names",
]

_SEQUENCE: Final = 0x30
_EXPLICIT_0: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERAL_TIME: Final = 0x18
_TIME = re.compile(r"[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])[0-5][0-9][0-6][0-9]Z")
# By string type; all others are UTF-8 or ASCII.
_ENCODINGS: Final = {
    0x14: "latin-1",  # TeletexString: its standard is another, but this is what certificates contain
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}

_COMMON_NAME: Final = bytes.fromhex("550403")  # 2.5.4.3
_ORGANISATION: Final = bytes.fromhex("55040a")  # 2.5.4.10
_AUTHORITY_INFO: Final = bytes.fromhex("06082b06010505070101")  # 1.3.6.1.5.5.7.1.1, as an OBJECT IDENTIFIER
_CA_ISSUERS: Final = bytes.fromhex("06082b06010505073002")  # 1.3.6.1.5.5.7.48.2
_ALTERNATIVE_NAMES: Final = bytes.fromhex("0603551d11")  # 2.5.29.17
_KEY_USAGE: Final = bytes.fromhex("0603551d0f")  # 2.5.29.15
# Those that libraries know: the key usage, names and constraints of RFC 5280, 4.2.1, all of 2.5.29.
_KNOWN_EXTENSIONS: Final = re.compile(rb"\x06\x03\x55\x1d[\x0f\x11\x13\x1e\x20\x21\x24\x25\x36]")
_BOOLEAN: Final = 0x01
_EXPLICIT_3: Final = 0xA3
_OCTET_STRING: Final = 0x04
_DNS_NAME: Final = 0x82
_URL: Final = 0x86
_IP_ADDRESS: Final = 0x87
_MAX_NAMES: Final = 10_000
# Keys that Chromium does not accept from a server, by their algorithm as DER.
_REJECTED_KEYS: Final = {
    bytes.fromhex("06032b6570"): "Ed25519",
    bytes.fromhex("06032b6571"): "Ed448",
    bytes.fromhex("06072a8648ce3d020106052b81040023"): "P-521",
}


class CertificateError(ValueError):
    """The bytes are not a certificate."""


class Certificate(msgspec.Struct, frozen=True, gc=False):
    """What results report about a certificate.

    Attributes:
        issuer: The issuer's common name; without one, its organisation.
        subject: The subject's common name; without one, its organisation.
        not_before: When the certificate becomes valid, in Unix seconds.
        not_after: When it expires, in Unix seconds.
        issuer_name: The issuer's whole name, as DER.
        subject_name: The subject's whole name, as DER.
        rejected_key: The algorithm of the public key if Chromium does not accept it; else None.
        has_issuer_url: Whether the certificate says where to fetch its issuer's certificate (RFC 5280, 4.2.2.1). Those
            of public authorities do. So if the issuer of one is missing, the server has not sent it.
    """

    issuer: str | None
    subject: str | None
    not_before: int
    not_after: int
    issuer_name: bytes
    subject_name: bytes
    rejected_key: str | None
    has_issuer_url: bool


class SubjectNames(msgspec.Struct, frozen=True, gc=False):
    """The hosts that a certificate is for (RFC 5280, 4.2.1.6).

    Attributes:
        dns: Host names in lower case, as they are written.
        addresses: IP addresses in 4 or 16 bytes.
    """

    dns: tuple[str, ...]
    addresses: tuple[bytes, ...]


def parse_certificate(der: bytes) -> Certificate:
    """Parse a certificate.

    Raises:
        CertificateError: The bytes are not a certificate.
    """
    try:
        [certificate] = _children(der, 0, len(der), 1)
        tbs_certificate = next(_children(der, certificate[1], certificate[2]))
        fields = list(_children(der, tbs_certificate[1], tbs_certificate[2], 7))
        has_version = fields[0][0] == _EXPLICIT_0  # version 1 leaves it out
        _, _, issuer, validity, subject, key = fields[has_version : 6 + has_version]
        not_before, not_after = _children(der, validity[1], validity[2])
        issuer_name, subject_name = der[issuer[1] : issuer[2]], der[subject[1] : subject[2]]
        algorithm = next(_children(der, key[1], key[2]))
        return Certificate(
            issuer=_parse_name(issuer_name),
            subject=_parse_name(subject_name),
            not_before=_parse_time(der, not_before),
            not_after=_parse_time(der, not_after),
            issuer_name=issuer_name,
            subject_name=subject_name,
            rejected_key=_REJECTED_KEYS.get(der[algorithm[1] : algorithm[2]]),
            has_issuer_url=_AUTHORITY_INFO in der and _CA_ISSUERS in der,
        )
    except (ValueError, IndexError, StopIteration, OverflowError) as error:
        raise CertificateError("not a certificate") from error


def parse_subject_names(der: bytes) -> SubjectNames:
    """Return the host names and addresses that a certificate is for; none if it does not say, or is malformed."""
    try:
        start, end = _find_extension(der, _ALTERNATIVE_NAMES)
        [names] = _children(der, start, end, 1)
        entries = list(_children(der, names[1], names[2], _MAX_NAMES))
    except (ValueError, IndexError, StopIteration):
        return SubjectNames((), ())
    return SubjectNames(
        tuple(der[start:end].decode("latin-1").lower() for tag, start, end in entries if tag == _DNS_NAME),
        tuple(der[start:end] for tag, start, end in entries if tag == _IP_ADDRESS),
    )


def parse_issuer_urls(der: bytes) -> list[str]:
    """Return the URLs of the issuer's certificate that a certificate contains (RFC 5280, 4.2.2.1)."""
    urls = []
    try:
        start, end = _find_extension(der, _AUTHORITY_INFO)
        [descriptions] = _children(der, start, end, 1)
        for _, first, last in _children(der, descriptions[1], descriptions[2]):
            method, location = _children(der, first, last)
            if der[method[1] - 2 : method[2]] == _CA_ISSUERS and location[0] == _URL:
                urls.append(der[location[1] : location[2]].decode("ascii"))
    except (ValueError, IndexError, StopIteration):
        pass
    return urls


class KeyUsage(IntFlag):
    """The purposes of a key that matter in TLS, as the bits of its key usage (RFC 5280, 4.2.1.3)."""

    DIGITAL_SIGNATURE = 0x80
    KEY_ENCIPHERMENT = 0x20
    CERTIFICATE_SIGNATURE = 0x04


def parse_key_usage(der: bytes) -> KeyUsage | None:
    """Return what a certificate's key may be used for; None if it does not say, or is malformed."""
    if _KEY_USAGE not in der:
        return None
    try:
        start, end = _find_extension(der, _KEY_USAGE)
        [bits] = _children(der, start, end, 1)
        return KeyUsage(der[bits[1] + 1] & sum(KeyUsage))
    except (ValueError, IndexError, StopIteration):
        return None


def is_usable_authority(der: bytes) -> bool:
    """Whether an authority may issue certificates by its key usage, and has no critical extension that is unknown."""
    usage = parse_key_usage(der)
    if usage is not None and not usage & KeyUsage.CERTIFICATE_SIGNATURE:
        return False
    try:
        for start, end in _extensions(der):
            oid, *middle, _ = _children(der, start, end)
            is_critical = any(tag == _BOOLEAN and der[first] for tag, first, _ in middle)
            if is_critical and not _KNOWN_EXTENSIONS.fullmatch(der, start, oid[2]):
                return False
    except (ValueError, IndexError, StopIteration):
        pass  # version 1, without extensions
    return True


def parse_pkcs7_certificates(der: bytes) -> list[bytes]:
    """Return the certificates of a PKCS #7 message (RFC 5280, 4.2.2.1: "certs-only"); none if it is not one."""
    try:
        [message] = _children(der, 0, len(der), 1)
        _, content = _children(der, message[1], message[2], 2)
        [signed] = _children(der, content[1], content[2], 1)
        parts = _children(der, signed[1], signed[2])
        _, start, end = next(part for part in parts if part[0] == _EXPLICIT_0)
        found, position = [], start
        for _, _, last in _children(der, start, end):
            found.append(der[position:last])
            position = last
    except (ValueError, IndexError, StopIteration):
        return []
    return found


def is_self_issued(certificate: Certificate) -> bool:
    """Return whether issuer and subject have the same name, by the loosest comparison that a library may use.

    Case and spaces do not count (RFC 5280, 7.1), nor do the encodings of strings or the types of attributes.
    """
    return _normalise_name(certificate.issuer_name) == _normalise_name(certificate.subject_name)


def _normalise_name(name: bytes) -> list[str]:
    return sorted("".join(value.lower().split()) for _, value in _attributes(name))


def _find_extension(der: bytes, oid: bytes) -> tuple[int, int]:
    """Return where the value of an extension starts and ends.

    Raises:
        ValueError, IndexError, StopIteration: There is none, or the certificate is malformed.
    """
    for start, end in _extensions(der):
        if der.startswith(oid, start):
            *_, value = _children(der, start, end)
            if value[0] == _OCTET_STRING:
                return value[1], value[2]
    raise ValueError("no such extension")


def _extensions(der: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each extension starts and ends.

    Raises:
        ValueError, IndexError, StopIteration: There are none, or the certificate is malformed.
    """
    [certificate] = _children(der, 0, len(der), 1)
    tbs_certificate = next(_children(der, certificate[1], certificate[2]))
    fields = _children(der, tbs_certificate[1], tbs_certificate[2])
    wrapper = next(field for field in fields if field[0] == _EXPLICIT_3)
    [extensions] = _children(der, wrapper[1], wrapper[2], 1)
    for _, start, end in _children(der, extensions[1], extensions[2]):
        yield start, end


_Element = tuple[int, int, int]  # tag, start and end of the content


def _children(der: bytes, start: int, end: int, max_elements: int = 1_000) -> Iterator[_Element]:
    """Yield the elements between two positions."""
    while start < end and max_elements:
        tag, length = der[start], der[start + 1]
        start += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[start : start + size], "big")
            start += size
        if start + length > end:
            raise ValueError("an element is longer than its parent")
        yield tag, start, start + length
        start += length
        max_elements -= 1


def _parse_name(der: bytes) -> str | None:
    """Return the common name; without one, the organisation."""
    attributes = dict(_attributes(der))
    return attributes.get(_COMMON_NAME) or attributes.get(_ORGANISATION)


def _attributes(name: bytes) -> Iterator[tuple[bytes, str]]:
    for _, set_start, set_end in _children(name, 0, len(name)):
        for _, start, end in _children(name, set_start, set_end):
            kind, value = _children(name, start, end)
            encoding = _ENCODINGS.get(value[0], "utf-8")
            yield name[kind[1] : kind[2]], name[value[1] : value[2]].decode(encoding, "replace")


def _parse_time(der: bytes, element: _Element) -> int:
    """Return a time as Unix seconds (RFC 5280, 4.1.2.5)."""
    tag, start, end = element
    text = der[start:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERAL_TIME:
        raise ValueError("not a time")
    if not _TIME.fullmatch(text):
        raise ValueError("not a time")
    return timegm((int(text[:4]), int(text[4:6]), int(text[6:8]), int(text[8:10]), int(text[10:12]), int(text[12:14])))
