import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.auth import orgdomain
from authmilter.auth.orgdomain import Record, names, organizational_domain, parse_record, prefetch, walk
from authmilter.errors import DnsTempError
from authmilter.interfaces import Answer
from tests.fakes import FakeDNS


def zone(records: dict[str, str | list[str]]) -> FakeDNS:
    """A DNS with the given policy records."""
    return FakeDNS({f"_dmarc.{n} TXT": [r] if isinstance(r, str) else r for n, r in records.items()})


@pytest.mark.parametrize(
    ("txt", "record"),
    [
        pytest.param(b"v=DMARC1", Record(), id="version alone: p=none"),
        pytest.param(b"v=DMARC1;", Record(), id="a final semicolon"),
        pytest.param(b"v = DMARC1 ; p = reject ;", Record(p="reject"), id="white space"),
        pytest.param(b"v\t=\tDMARC1\t;\tp=reject", Record(p="reject"), id="tabs"),
        pytest.param(b"v=DMARC1; P=Reject", Record(p="reject"), id="values in any case"),
        pytest.param(b"V=DMARC1; p=reject", Record(p="reject"), id="the tag v in any case"),
        pytest.param(b"v=DMARC1; sp=none; p=reject", Record(p="reject", sp="none"), id="tags in any order"),
        pytest.param(
            b"v=DMARC1; p=none; sp=quarantine; np=reject; psd=n; adkim=s; aspf=s; t=y",
            Record("none", "quarantine", "reject", "n", "s", "s", True),
            id="all policy tags",
        ),
        pytest.param(
            b"v=DMARC1; p=reject; pct=0; rf=afrf; ri=86400; x=y", Record(p="reject"), id="historic and unknown tags"
        ),
        pytest.param(b"v=DMARC1; p=reject; p=none", Record(p="reject"), id="a tag twice: the first counts"),
        pytest.param(
            b"v=DMARC1; p=reject; adkim=x; aspf=; psd=z; t=1", Record(p="reject"), id="wrong values give defaults"
        ),
        pytest.param(b"v=DMARC1; nonsense; =; p=reject", Record(p="reject"), id="what is no tag"),
        pytest.param(b"v=DMARC1; p=reject\xff", Record(usable=False), id="8-bit in p"),
        pytest.param(b"v=DMARC1; p=reject; \xff\x00=1", Record(p="reject"), id="8-bit elsewhere"),
        pytest.param(b"v=DMARC1; p=", Record(usable=False), id="empty p"),
        pytest.param(b"v=DMARC1; p=bogus", Record(usable=False), id="wrong p"),
        pytest.param(b"v=DMARC1; p=reject; sp=bogus; psd=y", Record(psd="y", usable=False), id="wrong sp"),
        pytest.param(b"v=DMARC1; p=reject; np=bogus", Record(usable=False), id="wrong np"),
        pytest.param(
            b"v=DMARC1; p=bogus; rua=mailto:d@e.example",
            Record(rua=("mailto:d@e.example",)),
            id="wrong p, reports wanted",
        ),
        pytest.param(
            b"v=DMARC1; p=reject; np=bogus; rua=mailto:d@e.example",
            Record(rua=("mailto:d@e.example",)),
            id="wrong np, reports wanted",
        ),
        pytest.param(b"v=DMARC1; p=bogus; rua=d@e.example", Record(usable=False), id="wrong p, rua is no URI"),
        pytest.param(b"v=DMARC1; p=bogus; rua=mailto:", Record(usable=False), id="wrong p, rua without address"),
        pytest.param(
            b"v=DMARC1; rua=mailto:a@e.example!10m , https://e.example/x,mailto:b@e.example!x,mailto:c c@e.example",
            Record(rua=("mailto:a@e.example", "https://e.example/x")),
            id="size limits and bad URIs",
        ),
        pytest.param(
            b"v=DMARC1; ruf=mailto:a@e.example; fo=1:d:s",
            Record(fo="1:d:s", ruf=("mailto:a@e.example",)),
            id="failure reports",
        ),
        pytest.param(b"v=DMARC1; fo=1", Record(), id="fo without ruf is ignored"),
        pytest.param(
            b"v=DMARC1; ruf=mailto:a@e.example; fo=0:1", Record(ruf=("mailto:a@e.example",)), id="fo=0:1 is wrong"
        ),
        pytest.param(b"v=dmarc1; p=reject", None, id="version in another case"),
        pytest.param(b"v=DMARC10; p=reject", None, id="a longer version"),
        pytest.param(b"v=DMARC1 p=reject", None, id="no semicolon behind the version"),
        pytest.param(b"p=reject; v=DMARC1", None, id="version not first"),
        pytest.param(b" v=DMARC1", None, id="white space in front"),
        pytest.param(b"v=spf1 -all", None, id="SPF"),
        pytest.param(b"verification=x", None, id="another tag that starts with v"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_record(txt: bytes, record: Record | None) -> None:
    assert parse_record(txt) == record


@given(st.binary(max_size=80).map(lambda tail: b"v=DMARC1;" + tail))
def test_whatever_follows_the_version_is_a_record(txt: bytes) -> None:
    record = parse_record(txt)
    assert record is not None
    assert {record.p, record.sp or "none", record.np or "none"} <= {"none", "quarantine", "reject"}


def test_a_long_record_is_cut() -> None:
    record = parse_record(b"v=DMARC1; rua=" + b"mailto:a@e.example," * 2000 + b"; p=reject")
    assert record is not None
    assert record.p == "none"
    assert len(record.rua) == 20


def test_a_long_record_is_read_as_a_short_one_but_not_kept() -> None:
    kept = orgdomain._parse_cached.cache_info().currsize
    for n in range(3):
        assert parse_record(b"v=DMARC1; p=reject; x%d=" % n + b"y" * 2000) == Record(p="reject")
        assert parse_record(b"v=spf1 %d " % n + b"y" * 2000) is None
    assert orgdomain._parse_cached.cache_info().currsize == kept


@pytest.mark.parametrize("labels", [1, 2, 7, 8, 9, 13, 120])
def test_no_walk_asks_more_than_eight_names(labels: int) -> None:
    found = names(".".join(["a"] * labels))
    assert len(found) == min(labels, 8)
    assert len(set(found)) == len(found)
    assert found[-1] == "a"


async def test_a_temporary_failure_ends_the_walk() -> None:
    dns = FakeDNS({"_dmarc.a.example TXT": ["v=DMARC1"]}, fail=["_dmarc.example TXT"])
    with pytest.raises(DnsTempError):
        await walk("a.example", dns)


async def test_discarded_records_are_named() -> None:
    found = await walk("a.example", zone({"a.example": ["v=DMARC1", "v=DMARC1; p=none", "v=spf1 -all"]}))
    assert found.several == ("a.example",)
    assert found.records == ()


async def test_other_txt_records_do_not_matter() -> None:
    found = await walk("a.example", zone({"a.example": ["v=spf1 -all", "v=DMARC1; p=reject", "hello"]}))
    assert found.records == (("a.example", Record(p="reject")),)


async def test_the_public_suffix_is_cut_out_of_the_start_where_the_walk_skipped_a_name() -> None:
    found = await walk(
        "a.b.c.d.e.f.g.h.i.example", zone({"e.f.g.h.i.example": [], "d.e.f.g.h.i.example": "v=DMARC1; psd=y"})
    )
    assert found.organizational_domain == "c.d.e.f.g.h.i.example"


async def test_a_record_at_the_top_level_domain_without_psd_makes_it_the_organizational_domain() -> None:
    assert (
        await organizational_domain("a.b.example", zone({"example": "v=DMARC1", "b.example": "v=DMARC1"})) == "example"
    )


class Prefetching(FakeDNS):
    """Notes what is asked for beforehand."""

    def prefetch(self, name: str, rdtype: str) -> None:
        self.asked.append(f"prefetch {name} {rdtype}")


async def test_all_names_are_asked_for_before_the_first_answer_is_awaited() -> None:
    dns = Prefetching()
    await walk("a.b.example", dns)
    assert dns.asked[:3] == [f"prefetch _dmarc.{name} TXT" for name in ("a.b.example", "b.example", "example")]
    again = Prefetching()
    prefetch("a.b.example", again)
    assert again.asked == dns.asked[:3]


class Knowing(Prefetching):
    """Knows the answers for some domains, and what was asked for them."""

    def __init__(self, *domains: str) -> None:
        super().__init__()
        self.cached = {f"_dmarc.{domain}": Answer((b"v=DMARC1; p=reject",), exists=True) for domain in domains}

    def known(self, name: str, rdtype: str) -> Answer | None:
        return self.cached.get(name)


async def test_what_is_known_is_not_asked_for() -> None:
    dns = Knowing("a.b.example", "b.example", "example")
    found = await walk("a.b.example", dns)
    assert [name for name, _ in found.records] == ["a.b.example", "b.example", "example"]
    assert dns.asked == []


async def test_where_one_answer_is_not_known_all_are_asked_for_together() -> None:
    dns = Knowing("a.b.example", "example")
    await walk("a.b.example", dns)
    names_asked = [f"prefetch _dmarc.{name} TXT" for name in ("a.b.example", "b.example", "example")]
    assert dns.asked == [*names_asked, "_dmarc.b.example TXT"]


@pytest.mark.parametrize(
    ("records", "domain"),
    [
        pytest.param({}, "a.example.org", id="none: the start itself"),
        pytest.param({"example.org": "v=DMARC1"}, "example.org", id="the fewest labels"),
        pytest.param({"example.org": "v=DMARC1; psd=n", "org": "v=DMARC1"}, "example.org", id="psd=n"),
        pytest.param({"org": "v=DMARC1; psd=y"}, "example.org", id="psd=y above"),
        pytest.param({"a.example.org": "v=DMARC1; psd=y", "org": "v=DMARC1"}, "a.example.org", id="psd=y at the start"),
    ],
)
async def test_organizational_domain(records: dict[str, str | list[str]], domain: str) -> None:
    assert await organizational_domain("a.example.org", zone(records)) == domain
