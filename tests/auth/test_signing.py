"""Signing: which section signs, what is signed, and that others can verify it."""

import random
import re
from base64 import b64encode
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authmilter.auth.keys import PrivateKey
from authmilter.auth.signing import MAX_SIGNED_FIELDS, Choice, Signer, SigningError
from authmilter.auth.taglist import parse_tags, split_list
from authmilter.config.option import FilePath, Seconds
from authmilter.config.schema import Sign
from authmilter.errors import ConfigError
from authmilter.evidence import Result
from authmilter.model import BodyHashKey, Message
from authmilter.verdict import HeaderEdit
from tests.auth.mail import MESSAGE, NOW, check, ed25519_key, hashed, record, rsa_key, split
from tests.fakes import FakeDNS

FORMS = ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FilePath]:
    """Key files: rsa, small (1024 bits), ed (PEM) and seed (base64)."""
    folder = tmp_path_factory.mktemp("keys")

    def write(name: str, content: bytes) -> FilePath:
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
        return FilePath(str(folder / name))

    def pem(key: PrivateKey) -> bytes:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    seed = ed25519_key().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return {
        "rsa": write("rsa.pem", pem(rsa_key())),
        "small": write("small.pem", pem(rsa_key(1024))),
        "ed": write("ed.pem", pem(ed25519_key())),
        "seed": write("seed", b64encode(seed)),
    }


def signer(keys: dict[str, FilePath], **options: object) -> Signer:
    """One section, for example.org, with both keys."""
    given = {
        "selector": "r2026", "key_file": keys["rsa"], "ed25519_selector": "e2026", "ed25519_key_file": keys["ed"],
    }  # fmt: skip
    return Signer.load({"example.org": Sign(**(given | options))})  # type: ignore[arg-type]


def sign(made: Signer, raw: bytes, domain: str = "example.org", now: float = NOW) -> list[HeaderEdit]:
    choice = made.choose([domain])
    fields, body = split(raw)
    return made.sign(choice, hashed(fields, body, made.body_hash_keys(choice)), now)


def apply(edits: list[HeaderEdit], raw: bytes) -> bytes:
    """The message as the MTA sends it: a blank after the colon, folds with CRLF."""
    for edit in edits:
        assert (edit.op, edit.at) == ("insert", 0)
        raw = f"{edit.name}: {edit.value}".replace("\n", "\r\n").encode() + b"\r\n" + raw
    return raw


def zone() -> FakeDNS:
    return FakeDNS(
        {
            "r2026._domainkey.example.org TXT": [record(rsa_key())],
            "e2026._domainkey.example.org TXT": [record(ed25519_key())],
        }
    )


def dkimpy_accepts(raw: bytes, index: int) -> bool:
    """What dkimpy says of the signature at that place."""

    def look_up(name: bytes, timeout: int = 5) -> bytes:
        found = zone().table.get((name.decode().rstrip("."), "TXT"))
        return str(found[0]).encode() if found else b""

    return bool(dkim.DKIM(raw).verify(index, dnsfunc=look_up))


# -- others can verify it ----------------------------------------------------------------------------------------------

MESSAGES = [
    pytest.param(MESSAGE, id="plain"),
    pytest.param(MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", id="no body"),
    pytest.param(
        b"List-Unsubscribe: <https://example.org/u>\r\nTo: second\r\n" + MESSAGE, id="two To and a list field"
    ),
    pytest.param(b"Subject:\r\nX-Other: 1\r\n" + MESSAGE.replace(b"Ann", b"\xc3\x84nn"), id="empty and 8-bit values"),
    pytest.param(MESSAGE + b" \t trailing \r\n\r\n" * 50, id="white space and empty lines"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("raw", MESSAGES)
async def test_both_signatures_verify(keys: dict[str, FilePath], raw: bytes, form: str) -> None:
    signed = apply(sign(signer(keys, canonicalization=form), raw), raw)
    results = await check(signed, zone())
    assert [(r.result, r.properties["header.a"]) for r in results] == [
        (Result.PASS, "rsa-sha256"),
        (Result.PASS, "ed25519-sha256"),
    ]
    assert dkimpy_accepts(signed, 0)
    assert dkimpy_accepts(signed, 1)
    changed = signed.replace(b"From: ", b"From: Not ")
    assert [r.result for r in await check(changed, zone())] == [Result.FAIL, Result.FAIL]


async def test_random_messages_verify(keys: dict[str, FilePath]) -> None:
    chance = random.Random(8463)
    made = {form: signer(keys, canonicalization=form, selector="", key_file="") for form in FORMS}
    pieces = ["a", "B:", ";", "=", "é", " ", "  ", "\t", "\r\n ", "\r\n\t"]
    for case in range(300):
        raw = b"From: ann@example.org\r\n"
        for name in chance.choices(["To", "Subject", "subject", "Received", "Cc", "X-Y"], k=chance.randrange(8)):
            value = "".join(chance.choices(pieces, k=chance.randrange(20))).rstrip() + "x"
            raw += f"{name}:{value}\r\n".encode()
        raw += b"\r\n" + "".join(chance.choices([*pieces, "\r\n"], k=chance.randrange(40))).encode() + b"\r\n"
        form = chance.choice(FORMS)
        signed = apply(sign(made[form], raw), raw)
        [result] = await check(signed, zone())
        assert (result.result, dkimpy_accepts(signed, 0)) == (Result.PASS, True), (case, form, raw)


async def test_a_seed_signs_like_the_pem_file(keys: dict[str, FilePath]) -> None:
    one = sign(signer(keys, selector="", key_file=""), MESSAGE)
    other = sign(signer(keys, selector="", key_file="", ed25519_key_file=keys["seed"]), MESSAGE)
    assert one == other


# -- the field ---------------------------------------------------------------------------------------------------------


def tags_of(edit: HeaderEdit) -> dict[bytes, bytes]:
    return parse_tags(edit.value.replace("\n", "\r\n").encode())


def test_the_rsa_signature_ends_up_on_top(keys: dict[str, FilePath]) -> None:
    edits = sign(signer(keys), MESSAGE)
    assert [tags_of(edit)[b"a"] for edit in edits] == [b"ed25519-sha256", b"rsa-sha256"]
    assert [tags_of(edit)[b"s"] for edit in edits] == [b"e2026", b"r2026"]


def test_tags(keys: dict[str, FilePath]) -> None:
    [edit] = sign(signer(keys, ed25519_selector="", ed25519_key_file=""), MESSAGE)
    tags = tags_of(edit)
    assert list(tags) == [b"v", b"a", b"c", b"d", b"s", b"t", b"h", b"bh", b"b"]
    assert (tags[b"v"], tags[b"c"], tags[b"d"]) == (b"1", b"relaxed/relaxed", b"example.org")
    assert tags[b"t"] == str(NOW).encode()


async def test_expire_sets_x(keys: dict[str, FilePath]) -> None:
    edits = sign(signer(keys, expire=Seconds(3600.0)), MESSAGE, now=NOW + 0.9)
    assert {tags_of(edit)[b"x"] for edit in edits} == {str(NOW + 3600).encode()}
    raw = apply(edits, MESSAGE)
    assert {r.result for r in await check(raw, zone(), now=NOW + 3600)} == {Result.PASS}
    assert {r.reason for r in await check(raw, zone(), now=NOW + 4000)} == {"signature has expired"}


def test_fields_are_listed_as_often_as_they_are_there_and_oversigned_once_more(keys: dict[str, FilePath]) -> None:
    raw = b"To: second\r\nReferences: <a@b>\r\nList-Id: <l>\r\nReceived: x\r\n" + MESSAGE
    made = signer(
        keys, headers=("From", "To", "subject", "List-Id", "Resent-From"), oversign=("FROM", "To", "Reply-To")
    )
    names = split_list(tags_of(sign(made, raw)[0])[b"h"])
    assert names == [b"From", b"From", b"To", b"To", b"To", b"subject", b"List-Id", b"Reply-To"]


@pytest.mark.parametrize("name", [b"From", b"Subject", b"Reply-To", b"Content-Type", b"List-Unsubscribe-Post", b"Cc"])
async def test_no_oversigned_field_can_be_added(keys: dict[str, FilePath], name: bytes) -> None:
    signed = apply(sign(signer(keys), MESSAGE), MESSAGE)
    for raw in (name + b": forged\r\n" + signed, signed.replace(b"\r\nDate:", b"\r\n" + name + b": x\r\nDate:")):
        assert {r.reason for r in await check(raw, zone())} == {"header has changed"}


@pytest.mark.parametrize("name", [b"Date", b"Message-ID"])
async def test_what_mail_servers_add_where_it_is_missing_can_still_be_added_then(
    keys: dict[str, FilePath], name: bytes
) -> None:
    """RFC 6409 sections 8.2 and 8.3; Sendmail does so after it has shown us the message."""
    without = re.sub(rb"(?m)^" + name + rb":.*\r\n", b"", MESSAGE)
    signed = apply(sign(signer(keys), without), without)
    assert {r.result for r in await check(name + b": added\r\n" + signed, zone())} == {Result.PASS}
    whole = name + b": given\r\n" + without
    signed = apply(sign(signer(keys), whole), whole)
    assert {r.reason for r in await check(name + b": second\r\n" + signed, zone())} == {"header has changed"}


@pytest.mark.parametrize("domain", ["example.org", "a-long-name." * 12 + "example.org"])
@pytest.mark.parametrize("form", FORMS)
def test_lines_are_at_most_78_columns_wide(keys: dict[str, FilePath], form: str, domain: str) -> None:
    raw = b"".join(b"%b: x\r\n" % name.encode() for name in Sign().headers) + MESSAGE
    for selector in ("s", "s" * 30, "s" * 63):
        for edit in sign(signer(keys, canonicalization=form, selector=selector, domain=domain), raw):
            assert "\r" not in edit.value
            assert not edit.value.startswith(" ")
            for line in f"DKIM-Signature: {edit.value}".split("\n"):
                assert line.strip()
                if domain not in line and selector not in line:
                    assert len(line.expandtabs(8)) <= 78, line


def test_what_can_not_be_signed(keys: dict[str, FilePath]) -> None:
    made = signer(keys)
    choice = made.choose(["example.org"])
    fields, body = split(MESSAGE)
    with pytest.raises(SigningError, match="not examined whole: body"):
        made.sign(choice, Message(fields), NOW)
    with pytest.raises(SigningError, match="not examined whole: header section"):
        made.sign(choice, hashed(fields, body, made.body_hash_keys(choice), oversized="header section"), NOW)
    many = fields + fields[:1] * MAX_SIGNED_FIELDS
    with pytest.raises(SigningError, match="over 1000 header fields"):
        made.sign(choice, hashed(many, body, made.body_hash_keys(choice)), NOW)


def test_without_keys_nothing_is_hashed_or_signed(keys: dict[str, FilePath]) -> None:
    made = signer(keys)
    assert made.body_hash_keys(Choice("no author domain")) == set()
    assert made.sign(Choice("no author domain"), Message(), NOW) == []
    assert signer(keys, canonicalization="relaxed/simple").body_hash_keys(made.choose(["example.org"])) == {
        BodyHashKey("simple", None)
    }


# -- which section -----------------------------------------------------------------------------------------------------

SECTIONS: dict[str, dict[str, str]] = {
    "example.org": {"subdomains": "parent"},
    "*.lists.example.org": {},
    "news.example.org": {"domain": "Example.ORG"},
    "example.com": {},
    "example.net": {"subdomains": "own"},
    "*.example.net": {"subdomains": "parent"},
    "*.secret.example.net": {"subdomains": "no"},
    "shop.example": {"subdomains": "own"},
}
ALSO = {"*": {"domain": "fallback.example"}}

CHOICES = [
    pytest.param("example.org", "example.org", "example.org", id="its own section"),
    pytest.param("a.b.example.org", "example.org", "example.org", id="parent that signs for its subdomains"),
    pytest.param("a.lists.example.org", "*.lists.example.org", "a.lists.example.org", id="wildcard, own name"),
    pytest.param("lists.example.org", "example.org", "example.org", id="a wildcard is not for the name itself"),
    pytest.param("news.example.org", "news.example.org", "example.org", id="section with another domain"),
    pytest.param("a.example.net", "*.example.net", "example.net", id="wildcard comes before the parent's section"),
    pytest.param("a.shop.example", "shop.example", "a.shop.example", id="parent whose subdomains sign for themselves"),
    pytest.param("a.example.com", "*", "fallback.example", id="parent that leaves subdomains out, then *"),
    pytest.param("other.example", "*", "fallback.example", id="nothing but *"),
]


def load(keys: dict[str, FilePath], sections: dict[str, dict[str, str]]) -> Signer:
    return Signer.load(
        {name: Sign(selector="s", key_file=keys["rsa"], **more) for name, more in sections.items()}  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("author", "section", "domain"), CHOICES)
def test_the_most_specific_section_wins(keys: dict[str, FilePath], author: str, section: str, domain: str) -> None:
    choice = load(keys, SECTIONS | ALSO).choose([author])
    assert (choice.section, choice.domain, choice.reason, len(choice.keys)) == (section, domain, "", 1)


REASONS = [
    pytest.param([], "no author domain", id="no author"),
    pytest.param(["other.example"], "no [sign] section for other.example", id="unknown domain"),
    pytest.param(["a.example.com"], "no [sign] section for a.example.com", id="subdomain of a section without"),
    pytest.param(
        ["a.secret.example.net"], "[sign *.secret.example.net] leaves a.secret.example.net out", id="left out"
    ),
    pytest.param(["a.example", "b.example"], "no [sign] section for a.example, b.example", id="several, none known"),
]


@pytest.mark.parametrize(("authors", "reason"), REASONS)
def test_why_a_message_is_not_signed(keys: dict[str, FilePath], authors: list[str], reason: str) -> None:
    choice = load(keys, SECTIONS).choose(authors)
    assert (choice.reason, choice.keys) == (reason, ())


def test_the_first_author_with_a_section_signs(keys: dict[str, FilePath]) -> None:
    assert load(keys, SECTIONS).choose(["other.example", "example.com", "example.org"]).domain == "example.com"


def test_a_single_label_is_no_signing_domain(keys: dict[str, FilePath]) -> None:
    assert load(keys, {"*": {}}).choose(["localhost"]).reason == "localhost can't be a signing domain"
    assert load(keys, {"*": {}}).choose(["a.example"]).domain == "a.example"


# -- configuration -----------------------------------------------------------------------------------------------------


def problems(name: str, options: Sign) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Signer.load({name: options})
    return caught.value.problems


def test_every_problem_is_named_at_once(keys: dict[str, FilePath], tmp_path: Path) -> None:
    open_file = tmp_path / "open.pem"
    open_file.write_bytes(Path(keys["rsa"]).read_bytes())
    open_file.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        Signer.load(
            {
                "a.example": Sign(selector="s"),
                "b.example": Sign(key_file=keys["rsa"]),
                "c.example": Sign(selector="s", key_file=FilePath(str(tmp_path / "none.pem"))),
                "d.example": Sign(selector="s", key_file=FilePath(str(open_file))),
                "e.example": Sign(),
                "*.e.example": Sign(subdomains="no"),
            }
        )
    assert caught.value.problems == (
        "[sign a.example] selector needs key_file",
        "[sign b.example] key_file needs selector",
        f"[sign c.example] key_file: {tmp_path}/none.pem: can't be read: No such file or directory",
        f"[sign d.example] key_file: {open_file}: others than its owner can read or change this key (mode 0644): chmod 600 {open_file}",
        "[sign e.example] has no key: give selector and key_file",
    )


def test_single_problems(keys: dict[str, FilePath]) -> None:
    rsa, ed = keys["rsa"], keys["ed"]
    table: list[tuple[str, Sign, str]] = [
        ("a.example", Sign(ed25519_selector="s"), "ed25519_selector needs ed25519_key_file"),
        ("a.example", Sign(ed25519_key_file=ed), "ed25519_key_file needs ed25519_selector"),
        ("a.example", Sign(selector="s", key_file=ed), f"key_file: {ed}: holds an Ed25519 key, which goes to ed25519_key_file"),
        ("a.example", Sign(ed25519_selector="s", ed25519_key_file=rsa), f"ed25519_key_file: {rsa}: holds an RSA key, which goes to key_file"),
        ("a.example", Sign(selector="S", key_file=rsa, ed25519_selector="s", ed25519_key_file=ed), "selector and ed25519_selector are the same: each key needs its own record"),
        ("a.example", Sign(selector="a b", key_file=rsa), "selector: 'a b' is no selector"),
        ("a.example", Sign(selector="s;x=1", key_file=rsa), "selector: 's;x=1' is no selector"),
        ("a.example", Sign(selector="ü", key_file=rsa), "selector: 'ü' is no selector"),
        ("a.example", Sign(selector="s", key_file=rsa, domain="a b"), "domain: 'a b' is no domain"),
        ("a.*.example", Sign(selector="s", key_file=rsa), "the name of the section is no domain, *.domain or *"),
        ("*.", Sign(selector="s", key_file=rsa), "the name of the section is no domain, *.domain or *"),
        ("*", Sign(selector="s", key_file=rsa, subdomains="parent"), "subdomains = parent needs a domain here"),
        ("a.example", Sign(selector="s", key_file=rsa, headers=("To",), oversign=()), "headers: From must be signed (RFC 6376 section 5.4)"),
        ("a.example", Sign(selector="s", key_file=rsa, headers=("From", "X:Y")), "headers, oversign: 'x:y' is no name of a header field"),
        ("a.example", Sign(selector="s", key_file=rsa, headers=("From", "X;b=1")), "headers, oversign: 'x;b=1' is no name of a header field"),
    ]  # fmt: skip
    for name, options, problem in table:
        assert problems(name, options) == (f"[sign {name}] {problem}",)


def test_a_key_of_1024_bits_is_warned_about(keys: dict[str, FilePath]) -> None:
    made = Signer.load({"a.example": Sign(selector="s", key_file=keys["small"])})
    assert made.warnings == (f"[sign a.example] key_file: {keys['small']}: 1024 bits are few (RFC 8301 advises 2048)",)
    assert signer(keys).warnings == ()


def test_a_key_below_1024_bits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pem"
    path.write_text(TINY)
    path.chmod(0o600)
    [problem] = problems("a.example", Sign(selector="s", key_file=FilePath(str(path))))
    assert problem == f"[sign a.example] key_file: {path}: 768 bits are too few (RFC 8301 asks for 1024 at least)"


# Made for this test; the library makes none this small.
TINY = """\
-----BEGIN RSA PRIVATE KEY-----
MIIBygIBAAJhAMsLMrxdlOM27i0QxFTDd6kX64FbJ+gw+PeAveddEQIcg3AY+4bh
F0e3Q+xEMJNLrH3tcJ3qCqrNSkP0K8bT/mC4U0dvmyVxOBa18rC/6vmmaznzBWGF
b5h3z4YVztUlgQIDAQABAmBG8D2kpAltrPZf1ljRyI0ZDdthEWkK7Xk+d8Nhfxl/
JFkjpAbU4/WPP89CT7ys6aXVG+4ZbOl4XLUEW25qlJHQt/d9Kb8WVI5Cic2pqMlC
wrlUr3h1zP750b1/6Z2EJZUCMQD8z6Hq1jLc/Jiy1Djh/X3o/QKS4kUM1jrJdGcv
BE87HFaHxo0Nty6DJzoMJBiGE1MCMQDNmtvpMOb76RL1pMlymH2GJVOTxKpzwL1K
1yBtCF/mbnyAnN2yraeFZwq9yUR4vVsCMHxREdsr95kJsYEGsO4YPCks+W4HTFMy
qXfVAMRzBw8XMUnVDhm3gWzHBllgCpsrtwIwCaACQ3xik9Bpbs50D8VLuwfsTbKb
OCgBtIs1nWUS+Dqb4Xl2d3LhsMEOI6xUZEKZAjEAoMBj6FkHTdptqzz11v5OjOnO
XdwXSY2zBf7MBC2mhynXGndta4QJgt6vOxsSwCSd
-----END RSA PRIVATE KEY-----
"""
