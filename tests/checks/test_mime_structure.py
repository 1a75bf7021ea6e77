"""MIME that readers take apart in different ways."""

import pytest

from authmilter.check import all_checks
from authmilter.checks.mime_structure import mime_structure
from authmilter.mime import ODDITIES
from authmilter.model import Transaction
from tests.checks.tools import computed, tools
from tests.test_mime import MIXED, message


@pytest.mark.parametrize(
    ("raw", "symbols"),
    [
        pytest.param(MIXED, set(), id="the usual message"),
        pytest.param(
            b"Content-Type: text/plain\nContent-Type: text/html\n\nx\n", {"mime_type_repeated"}, id="two types"
        ),
        pytest.param(
            b"Content-Transfer-Encoding: base64\n\naGkhaG", {"mime_base64_cut"}, id="what shows when it is decoded"
        ),
        pytest.param(b"Content-Type: multipart/mixed; boundary=a\n\n", set(), id="an empty multipart"),
    ],
)
def test_findings(raw: bytes, symbols: set[str]) -> None:
    found = computed(mime_structure, Transaction(message=message(raw)), tools())
    assert {finding.symbol for finding in found} == symbols


def test_a_message_larger_than_what_is_kept_has_no_finding_for_that() -> None:
    whole = message(MIXED)
    half = whole.body[: len(whole.body) - 20]
    sent = Transaction(message=whole.with_body(len(half), {}, "", half))
    assert computed(mime_structure, sent, tools()) != []
    kept = Transaction(message=whole.with_body(len(whole.body), {}, "", half, body_cut=True))
    assert computed(mime_structure, kept, tools()) == []


def test_every_oddity_has_a_weight_that_tags_nothing_alone() -> None:
    scores = next(check.scores for check in all_checks() if check.name == "mime_structure")
    assert set(scores) == {f"mime_{name}" for name in ODDITIES}
    assert all(isinstance(weight, int | float) and 0 <= weight <= 1.5 for weight in scores.values())
