"""Authentication-Results (RFC 8601): fields of others that are judged, and results that are written and read back."""

import json
import lzma
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import authres

from authmilter.auth.results_header import claims, render
from authmilter.evidence import AuthResult, Result
from tests.shared import shared
from tests.suites.suite import Case, Explained, Suite

STRANGER = frozenset({"mx.stranger.invalid"})
_WORDS = frozenset(Result)


def examples() -> list[dict[str, Any]]:
    """The values of RFC 8601 appendix B and of authres, with what authres makes of them."""
    lines = shared("authres-vectors/headers.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def real_world() -> Iterator[tuple[str, bytes]]:
    """Name and value of real fields, with CRLF at their folds."""
    path = shared("authres-vectors/real-world.jsonl.xz")
    for line in lzma.decompress(path.read_bytes()).decode().splitlines():
        row = json.loads(line)
        yield row["name"], row["value"].replace("\n", "\r\n").encode("utf-8", "surrogateescape")


async def _claimed(value: bytes, *ids: str) -> str:
    by_itself = claims(value, frozenset(ids))
    return f"{'claimed' if by_itself else 'not claimed'}, {'' if claims(value, STRANGER) else 'not '}removed elsewhere"


def authserv_ids() -> Iterator[Case]:
    """A field is ours under its own authserv-id and under no other (RFC 8601 section 5)."""
    for number, row in enumerate(examples(), 1):
        value = row["value"].encode()
        name = re.match(rb"[a-z.-]+", value)
        assert name is not None
        yield Case(
            f"{number} {row['source']}", ("claimed, not removed elsewhere",), partial(_claimed, value, name[0].decode())
        )


def real_fields() -> Iterator[Case]:
    """One whose authserv-id can be read is not ours; one without must go, since a lenient reader may see ours there.

    Fields of other names are no Authentication-Results; that they are judged at all is what they are here for.
    """
    for number, (name, value) in enumerate(real_world(), 1):
        readable = re.match(rb"\s*[\w.-]+(?:\s+1)?\s*(?:\([^()]*\)\s*)?;", value) is not None
        left, gone = "not claimed, not removed elsewhere", "claimed, removed elsewhere"
        expected = (left, gone) if name != "Authentication-Results" else (left,) if readable else (gone,)
        yield Case(f"{number} {name}", expected, partial(_claimed, value, "mx.authmilter.invalid"))


# What stands in the two values that authres can't read: comments everywhere, and an IPv6 address without quotes.
UNREAD: dict[str, list[dict[str, Any]]] = {
    "foo.example.net": [
        {"method": "dkim", "result": "fail", "reason": None, "properties": [["policy", "expired", "1362471462"]]}
    ],
    "mail.bmsi.com;": [
        {"method": "iprev", "result": "pass", "reason": None, "properties": [["policy", "iprev", "2001:748:100:40::2:2"]]},
        {"method": "spf", "result": "none", "reason": None, "properties": [["smtp", "mailfrom", "markuslaudi@freenet.de"]]},
    ],
}  # fmt: skip


def written() -> Iterator[Case]:
    """The results of the examples, written by us, are read back by authres as they were."""
    for number, row in enumerate(examples(), 1):
        read = row["authres_1_2_0"]
        name = f"{number} {row['source']}"
        results = read["results"] if "results" in read else UNREAD[row["value"].split()[0]]
        wanted = [result for result in results if result["result"] in _WORDS]
        dropped = [f"{r['method']}={r['result']}" for r in results if r not in wanted]
        explained = None
        if dropped:
            explained = Explained(_shown(wanted), f"no word of a method that we have: {', '.join(dropped)}")
        yield Case(name, (_shown(results),), partial(_read_back, wanted), explained)


def _shown(results: list[dict[str, Any]]) -> str:
    return "; ".join(
        f"{r['method']}={r['result']} {r['reason'] or ''} { {f'{t}.{p}': v for t, p, v in r['properties']} }"
        for r in results
    )


async def _read_back(results: list[dict[str, Any]]) -> str:
    ours = [
        AuthResult(
            r["method"], Result(r["result"]), "", {f"{t}.{p}": v for t, p, v in r["properties"]}, r["reason"] or ""
        )
        for r in results
    ]
    value = render("mx.example.net", ours).replace("\n", "\r\n")
    header = authres.AuthenticationResultsHeader.parse(f"Authentication-Results: {value}")
    return _shown(
        [
            {"method": r.method, "result": r.result, "reason": r.reason,
             "properties": [(p.type, p.name, p.value) for p in r.properties]}
            for r in header.results
        ]
    )  # fmt: skip


IDS = Suite("A-R authserv-ids", "authres-vectors", 29, authserv_ids)
WRITTEN = Suite("A-R written, read back", "authres-vectors", 29, written)
REAL_FIELDS = Suite("A-R of real mail", "authres-vectors", 1398, real_fields)
SUITES = (IDS, WRITTEN, REAL_FIELDS)
