"""The guard refuses every special range from its first to its last address, in every spelling, and nothing else."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.core.errors import OptionError
from crawler.core.urls import Url, parse_url
from crawler.transport.address_guard import AddressGuard

PUBLIC = AddressGuard("public")


def words(text: str) -> list[str]:
    return text.split()


REFUSED = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private (RFC 1918)",
    "100.64.0.0/10": "carrier",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "cloud metadata",
    "169.254.0.0/16": "link-local, cloud metadata",
    "172.16.0.0/12": "private (RFC 1918)",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "6to4",
    "192.168.0.0/16": "private (RFC 1918)",
    "198.18.0.0/15": "benchmarks",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/5": "reserved",
    "255.255.255.255/32": "broadcast",
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::7f00:0/104": "IPv4-compatible",
    "::ff00:0/104": "IPv4-compatible",
    "::ffff:0:0:0/96": "IPv4-translated",
    "64:ff9b:1::/48": "NAT64",
    "100::/64": "discarded",
    "100:0:0:1::/64": "dummy",
    "2001::/32": "Teredo",
    "2001:1::/32": "protocol assignments",
    "2001:2::/48": "benchmarks",
    "2001:4:111::/48": "protocol assignments",
    "2001:4:113::/48": "protocol assignments",
    "2001:10::/28": "ORCHID",
    "2001:20::/28": "ORCHIDv2",
    "2001:30::/28": "drone tags",
    "2001:100::/24": "protocol assignments",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fc00::/7": "unique local",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
    # Not given out, at the edges of what is.
    "64:ff9a:ffff:ffff:ffff:ffff::/96": "not given out",
    "64:ff9b:0:0:0:1::/96": "not given out",
    "100:0:0:2::/64": "not given out",
    "1fff::/16": "not given out",
    "4000::/16": "not given out",
    "5eff::/16": "not given out",
    "5f01::/16": "not given out",
    "fb00::/8": "not given out",
    "fe00::/9": "not given out",
}

# The first and last address beside a refused range or inside an open one.
OPEN = words("""
    1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15 168.63.129.17
    169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.1.255 192.0.3.0
    192.31.196.0 192.31.196.255 192.52.193.0 192.52.193.255 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0
    192.175.48.0 192.175.48.255 198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0
    223.255.255.255
    2000:: 2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:200:: 2001:db7:ffff:ffff:ffff:ffff:ffff:ffff 2001:db9::
    2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2003:: 2001:3:: 2001:3:ffff:ffff:ffff:ffff:ffff:ffff 2001:4:112::
    2001:4:112:ffff:ffff:ffff:ffff:ffff 2620:4f:8000:: 3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3fff:1000::
    3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 64:ff9b::808:808 ::ffff:8.8.8.8
""")

METADATA = words("""
    169.254.169.254 169.254.169.253 169.254.170.2 169.254.0.23 169.254.42.42 100.100.100.200 168.63.129.16 192.0.0.192
    fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42 fe80::a9fe:a9fe
""")


@pytest.mark.parametrize(("network", "why"), REFUSED.items())
def test_a_special_range_is_refused_from_its_first_address_to_its_last(network: str, why: str) -> None:
    whole = ip_network(network)
    for address in (whole[0], whole[whole.num_addresses // 2], whole[-1]):
        assert why in (PUBLIC.why_refused(str(address)) or "")


@pytest.mark.parametrize("address", OPEN)
def test_addresses_beside_a_special_range_may_be_dialled(address: str) -> None:
    assert PUBLIC.why_refused(address) is None


@pytest.mark.parametrize("address", METADATA)
def test_cloud_metadata_is_refused_under_that_name(address: str) -> None:
    assert "cloud metadata" in (PUBLIC.why_refused(address) or "")


@pytest.mark.parametrize(
    "address",
    ["192.0.0.9", "192.0.0.10", "192.88.99.2", "2001:1::1", "2001:1::2", "2001:1::3"],
)
def test_anycast_that_finds_our_own_network_is_refused(address: str) -> None:
    assert PUBLIC.why_refused(address)


@pytest.mark.parametrize(
    "address",
    words("""
    ::ffff:127.0.0.1 ::ffff:a00:1 ::127.0.0.1 ::8.8.8.8 ::ffff:0:7f00:1 64:ff9b::7f00:1 64:ff9b::169.254.169.254
    64:ff9b:1::808:808 2002:7f00:1:: 2002:808:808::1 2001:0:4136:e378:8000:63bf:3fff:fdd2
    2a00::5efe:127.0.0.1 2a00::200:5efe:10.0.0.1 2a00::5efe:8.8.8.8 fe80::5efe:10.0.0.1
    """),
)
def test_ipv4_inside_ipv6_is_unwrapped_or_refused(address: str) -> None:
    assert PUBLIC.why_refused(address)


@pytest.mark.parametrize("address", ["2a00::5eff:127.0.0.1", "2a00::100:5efe:127.0.0.1", "2a00:5efe::1", "2a00::1:0:0"])
def test_what_only_resembles_isatap_may_be_dialled(address: str) -> None:
    assert PUBLIC.why_refused(address) is None


@pytest.mark.parametrize(
    "address", ["fe80::1%eth0", "2a00::1%1", "::1%lo", "::ffff:8.8.8.8%1", "fe80::1%", "8.8.8.8%1"]
)
@pytest.mark.parametrize("guard", [PUBLIC, AddressGuard("public", ["::/0", "0.0.0.0/0"])])
def test_an_address_with_a_zone_is_refused(guard: AddressGuard, address: str) -> None:
    assert guard.why_refused(address)


# Text in a URL, the address it means.
SPELLINGS = {
    "127.0.0.1": words("""
        127.0.0.1 2130706433 0x7f000001 0X7F000001 017700000001 127.1 127.0.1 127.0x0.0.0x1 0x7f.1 0177.0.0.01
        0x7f.0x0.0x0.0x1 00000000177.1 127.0.0.1. 2130706433. 127.1.
        \uff11\uff12\uff17.\uff10.\uff10.\uff11 \u2460\u2461\u2466.\u24ea.\u24ea.\u2460
        127\u30020\u30020\u30021 127\uff0e0\uff0e0\uff0e1 127\uff610\uff610\uff611
        %31%32%37.0.0.1 127%2e0%2e0%2e1 127.0.0.1\xad
        a@127.0.0.1 a:b@127.0.0.1 example.com@127.0.0.1 8.8.8.8@127.0.0.1 example.com:80@127.0.0.1 @127.0.0.1
        a@example.com@127.0.0.1 %40@127.0.0.1 127.0.0.1:8080 127.0.0.1#@example.com 127.0.0.1?@example.com
        127.0.0.1/@example.com 127.0.0.1\\@example.com 127.0.0.1\\.example.com /127.0.0.1 \\127.0.0.1
    """),
    "169.254.169.254": words("""
        169.254.169.254 2852039166 0xa9fea9fe 025177524776 169.254.43518 169.16689662 0xa9.0xfe.0xa9.0xfe
        0251.0376.0251.0376 169\u3002254\u3002169\u3002254 \uff11\uff16\uff19.254.169.254 8.8.8.8@169.254.169.254
    """),
    "0.0.0.0": words("0.0.0.0 0 0x 0x0 00 0.0 0\u30020"),
    "10.0.0.1": words("10.1 10.0.1 012.1 0xa.1 167772161 a@10.1."),
    "::1": words(
        "[::1] [0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001] [::0001] [::0.0.0.1] a@[::1] [::1]:80"
    ),
    "::ffff:7f00:1": words("[::ffff:127.0.0.1] [::FFFF:7F00:1] [0:0:0:0:0:ffff:7f00:0001] [0::ffff:127.0.0.1]"),
    "::7f00:1": words("[::127.0.0.1] [::7f00:1]"),
    "64:ff9b::a9fe:a9fe": words("[64:ff9b::169.254.169.254] [0064:FF9B:0:0::a9fe:a9fe]"),
    "fd00:ec2::254": words("[fd00:ec2::254] [FD00:0EC2::254] [fd00:ec2:0:0:0:0:0:254]"),
}


@pytest.mark.parametrize(("text", "address"), [(text, address) for address in SPELLINGS for text in SPELLINGS[address]])
def test_every_spelling_in_a_url_is_one_address_and_is_refused(text: str, address: str) -> None:
    url = parse_url(f"http://{text}")
    assert isinstance(url, Url)
    assert url.host == address
    assert PUBLIC.why_refused(url.host)


@pytest.mark.parametrize(
    "text",
    words("""
    127.0.0.1.. 08.1 0x0x7f.1 256.1.1.1 1.2.3.256 4294967296 127.0.0.1.1 127.0.0.1%00 127..1 .127.0.0.1
    127.0.0.1:0 127.0.0.1:65536 127.0.0.1:80:80 [127.0.0.1] [::1 ::1] [::1]. [::1%25lo] [fe80::1%eth0] [::ffff:0x7f.1]
    [::ffff:127.1] [::ffff:127.0.0.01] [::1::] [:::1] [1:2:3:4:5:6:7:8:9] [::g] [\uff1a:1] 127.0.0.1\x00 a.1
    """),
)
def test_an_ambiguous_spelling_is_not_a_url(text: str) -> None:
    assert not isinstance(parse_url(f"http://{text}/"), Url)


@pytest.mark.parametrize(
    "text",
    [
        *words(
            "localhost 127.1 2130706433 0x7f.0.0.1 127.0.0.01 1.2.3.4.5 256.1.1.1 8.8.8.8/32 +8.8.8.8 8.8.8.-8 1..2.3"
        ),
        *words("[::1] 2a00:::1 ::ffff:127.0.0.01 2a00::1/64 2a00::1% : ."),
        *("\uff11.1.1.1", "\ud800", "\x00", "", " ", "1.2.3.4 ", "1.2.3.4\n", "2a00::\n"),
        *("9" * 10_000, ":" * 10_000, "1." * 10_000),
    ],
)
@pytest.mark.parametrize("guard", [PUBLIC, AddressGuard("public", ["0.0.0.0/0", "::/0"])])
def test_text_that_is_not_an_address_is_refused(guard: AddressGuard, text: str) -> None:
    assert guard.why_refused(text)


@given(st.text() | st.text("0123456789abcdefxX.:%/[]", max_size=45))
@example("fe80::%\n")
def test_a_reason_for_any_text_is_one_line(text: str) -> None:
    for guard in (PUBLIC, AddressGuard("public", ["10.0.0.0/8", "fc00::/7"])):
        for why in (guard.why_refused(text), guard.why_host_refused([text])):
            assert why is None or (why and why.isprintable())
    try:
        ip_address(text)
    except ValueError:
        assert PUBLIC.why_refused(text) == "not an IP address"


# A second implementation, slow and plain: the narrowest of these networks that contains an address decides.
TABLE: dict[IPv4Network | IPv6Network, bool] = {ip_network(network): False for network in REFUSED} | {
    ip_network(network): False for network in ["240.0.0.0/4", "::/0", "::/96", "2001::/23"]
}
TABLE |= {
    ip_network(network): True
    for network in ["0.0.0.0/0", "2000::/3", "2001:3::/32", "2001:4:112::/48", "192.31.196.0/24", "2620:4f:8000::/48"]
}


def near(version: int) -> st.SearchStrategy[int]:
    """Generate addresses as numbers, often at the edges of the table's networks."""
    bits = 32 if version == 4 else 128
    edges = [int(end) for network in TABLE if network.version == version for end in (network[0], network[-1])]
    beside = st.tuples(st.sampled_from(edges), st.integers(-2, 2)).map(sum)
    return st.integers(0, 2**bits - 1) | beside.filter(lambda number: 0 <= number < 2**bits)


ipv4 = near(4).map(IPv4Address)
ipv6 = near(6).map(IPv6Address)


def may_be_dialled(address: IPv4Address | IPv6Address) -> bool:
    if address in ip_network("::ffff:0:0/96") or address in ip_network("64:ff9b::/96"):
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    if address.version == 6 and address.packed[8:12] in (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe"):
        return False
    return TABLE[max((network for network in TABLE if address in network), key=lambda network: network.prefixlen)]


@given(ipv4 | ipv6)
def test_the_narrowest_network_in_the_table_decides(address: Any) -> None:
    assert (PUBLIC.why_refused(str(address)) is None) == may_be_dialled(address)


@given(ipv4 | ipv6)
@example(ip_address("192.0.0.9"))
def test_whatever_python_calls_not_global_is_refused(address: Any) -> None:
    reachable = ["::ffff:0:0/96", "64:ff9b::/96", "2001:3::/32", "2001:4:112::/48"]  # not to every version of Python
    if not address.is_global and not any(address in ip_network(network) for network in reachable):
        assert PUBLIC.why_refused(str(address))


@given(ipv6)
def test_the_answer_does_not_depend_on_the_spelling(address: IPv6Address) -> None:
    head, tail = address.exploded[:30], IPv4Address(int(address) & 0xFFFFFFFF)
    short = ":".join(group.lstrip("0") or "0" for group in address.exploded.split(":"))
    spellings = [address.compressed, address.exploded, short, f"{head}{tail}"]
    assert len({PUBLIC.why_refused(text) for spelling in spellings for text in (spelling, spelling.upper())}) == 1


def embedded(address: IPv4Address, prefix: int) -> dict[str, IPv6Address]:
    """Return the IPv6 addresses that embed an IPv4 address; `prefix` is any /64."""
    number = int(address)
    teredo = int(IPv6Address("2001::")) | 0x08080808 << 64 | number ^ 0xFFFFFFFF
    forms = {
        "mapped": 0xFFFF << 32 | number,
        "compatible": number,
        "translated": 0xFFFF << 48 | number,
        "NAT64": int(IPv6Address("64:ff9b::")) | number,
        "local NAT64": int(IPv6Address("64:ff9b:1::")) | number,
        "6to4": 0x2002 << 112 | number << 80 | 1,
        "Teredo client": teredo,
        "Teredo server": int(IPv6Address("2001::")) | number << 64 | 0xF7F7F7F7,
        "ISATAP": prefix << 64 | 0x5EFE << 32 | number,
        "ISATAP, global": prefix << 64 | 0x02005EFE << 32 | number,
    }
    return {form: IPv6Address(value) for form, value in forms.items()}


@given(ipv4, st.integers(0x2A << 56, (0x2B << 56) - 1))
def test_no_ipv6_form_opens_a_refused_ipv4_address(address: IPv4Address, prefix: int) -> None:
    why = PUBLIC.why_refused(str(address))
    forms = embedded(address, prefix)
    opened = {form for form, spelling in forms.items() if PUBLIC.why_refused(str(spelling)) is None}
    assert opened == (set() if why else {"mapped", "NAT64"})
    assert PUBLIC.why_refused(str(forms["mapped"])) == why


@given(st.text() | (ipv4 | ipv6).map(str))
def test_any_refuses_nothing(text: str) -> None:
    assert AddressGuard("any").why_refused(text) is None


def test_an_unknown_policy_is_the_strict_one() -> None:
    policy: Any = "Any"
    assert AddressGuard(policy).why_refused("127.0.0.1")


@pytest.mark.parametrize(
    ("allow", "opened", "closed"),
    [
        (
            ["10.0.0.0/8"],
            "10.0.0.0 10.255.255.255 ::ffff:10.0.0.1 ::ffff:a00:1 8.8.8.8",
            "169.254.169.254 127.0.0.1 172.16.0.1 192.168.0.1 64:ff9b::10.0.0.1 2002:a00:1:: ::10.0.0.1 ::1",
        ),
        (["127.0.0.1"], "127.0.0.1 ::ffff:7f00:1", "127.0.0.2 ::1 10.0.0.1"),
        (["127.0.0.1/32", "::1/128"], "127.0.0.1 ::1", "127.0.0.2 :: ::2"),
        (["::ffff:10.0.0.0/104"], "10.0.0.1 ::ffff:10.0.0.1", "172.16.0.1 127.0.0.1 ::ffff:127.0.0.1"),
        (["::ffff:0:0/96"], "10.0.0.1 ::ffff:127.0.0.1", "::1 fc00::1"),
        (["fc00::/7"], "fc00::1 FD00:EC2::254", "fe80::1 ::1 fc00::1%eth0"),
        (["64:ff9b::/96"], "64:ff9b::10.0.0.1", "10.0.0.1 ::ffff:10.0.0.1"),
        (["::/0"], "::1 fe80::1 4000:: 2a00::5efe:1.2.3.4", "127.0.0.1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe"),
        (["0.0.0.0/0"], "127.0.0.1 169.254.169.254 ::ffff:0.0.0.0", "::1 fe80::1 64:ff9b::7f00:1"),
    ],
)
def test_an_allowed_network_opens_itself_and_nothing_else(allow: list[str], opened: str, closed: str) -> None:
    guard = AddressGuard("public", allow)
    assert [address for address in opened.split() if guard.why_refused(address)] == []
    assert [address for address in closed.split() if not guard.why_refused(address)] == []


@given(ipv4 | ipv6, st.data())
def test_an_address_may_be_dialled_if_the_policy_or_an_allowed_network_says_so(
    address: Any, data: st.DataObject
) -> None:
    bits = address.max_prefixlen
    networks = [
        ip_network((number >> bits - length << bits - length, length))
        for number, length in data.draw(st.lists(st.tuples(near(address.version), st.integers(1, bits)), max_size=3))
        if number >= 2**32 or bits == 32
    ]
    if bits == 128:
        networks = [network for network in networks if ip_address("::ffff:0:0") not in network]
        if address.ipv4_mapped:
            return
    allowed = any(address in network for network in networks)
    guard = AddressGuard("public", [str(network) for network in networks])
    assert (guard.why_refused(str(address)) is None) == (may_be_dialled(address) or allowed)


@pytest.mark.parametrize(
    "text",
    [
        *words(
            "10.0.0.1/8 10.0.0.0/33 10.0.0.0/ 10.0.0.0/-1 10.0.0.0/+8 10.0.0.0/8/8 10/8 10.0.0.0/\xb2 /8 / localhost"
        ),
        *words("10.0.0.0/255.0.0.0 10.0.0.0/0.255.255.255 010.0.0.0/8 256.0.0.0/8 ::ffff:10.0.0.1/104 fc00::1/7"),
        *("fc00::/129", "fe80::%eth0/64", "fe80::/64%eth0", "", " 10.0.0.0/8", "10.0.0.0/8\n", "10.0.0.0 /8", "\ud800"),
    ],
)
def test_an_entry_that_is_not_a_network_is_an_option_error(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        AddressGuard("public", ["192.168.0.0/16", text])
    assert caught.value.place == "allow"
    assert repr(text) in caught.value.message


def test_an_entry_is_checked_under_any_too() -> None:
    with pytest.raises(OptionError):
        AddressGuard("any", ["10.0.0.1/8"])


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        ([], None),
        (["8.8.8.8", "2a00::1"], None),
        (["8.8.8.8", "10.0.0.1", "127.0.0.1"], "10.0.0.1: private (RFC 1918)"),
        (["::ffff:7f00:1", "8.8.8.8"], "::ffff:7f00:1: loopback (RFC 1122)"),
        (["8.8.8.8", "here"], "here: not an IP address"),
        (["8.8.8.8", "\n2026 all is well"], "not an IP address"),
    ],
)
def test_one_refused_address_blocks_the_host(addresses: list[str], reason: str | None) -> None:
    assert PUBLIC.why_host_refused(addresses) == reason
    assert AddressGuard("any").why_host_refused(addresses) is None


def test_an_allowed_address_does_not_block_the_host() -> None:
    guard = AddressGuard("public", ["10.0.0.0/8"])
    assert guard.why_host_refused(["8.8.8.8", "10.0.0.1"]) is None
    assert (
        guard.why_host_refused(["10.0.0.1", "169.254.169.254"])
        == "169.254.169.254: link-local, cloud metadata (RFC 3927)"
    )
