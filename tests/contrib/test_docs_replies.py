"""The page of SMTP replies: made from the code, complete, and as Postfix passes them on."""

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from authmilter.check import all_checks, known_symbols, words_for
from authmilter.milter.engine import TOO_BUSY
from authmilter.replies import _WORDS
from authmilter.verdict import Action
from tests.contrib.fences import DOCS
from tests.rig.postfix import Client, Postfix, require_rig
from tests.rig.sink import Sink

PAGE = DOCS / "replies.md"
TEXT = PAGE.read_text(encoding="utf-8")


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("contrib_docs_replies", DOCS / "replies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _generator()
ENTRIES = [entry for entries in MAKER.ENTRIES.values() for entry in entries]
EXPLAINED = [symbol for entry in ENTRIES for symbol in entry.symbols.split()]


def test_the_page_is_up_to_date() -> None:
    assert MAKER.page() == TEXT, "run contrib/docs/replies.py"


def test_every_symbol_with_words_of_its_own_is_explained_once() -> None:
    worded = {*_WORDS, *(symbol for check in all_checks() for symbol in check.replies)}
    assert set(EXPLAINED) == worded
    assert len(EXPLAINED) == len(set(EXPLAINED))


def test_every_symbol_that_a_preset_refuses_or_defers_has_words_of_its_own() -> None:
    for policy in MAKER._policies().values():
        for symbol, action in policy.common.actions.items():
            if action in (Action.REJECT, Action.TEMPFAIL):
                assert symbol in _WORDS or words_for(symbol), symbol


def test_every_code_and_text_that_the_code_can_give_stands_on_the_page() -> None:
    codes = {TOO_BUSY.code}
    for entry in ENTRIES:
        for symbol, action, reply in MAKER.replies(entry):
            text = reply.text.removesuffix(f" [{MAKER.REFERENCE}]")
            (section,) = (
                part for part in TEXT.split("\n### ")[1:] if part.startswith(f"{text}\n") and _names(part, symbol)
            )
            if action is Action.REJECT and MAKER._is_temporary(entry):
                continue  # only [scores] could make a lasting refusal of it, against what it is for
            assert f"{reply.code} {reply.enhanced}" in section
            codes.add(reply.code)
    assert codes >= {421, 451, 452, 501, 550, 554, 556}
    for code in codes:
        assert f"\n**{code}**: " in TEXT
    assert "530" in TEXT  # not ours, and said so


def _names(section: str, symbol: str) -> bool:
    return f"`{symbol}NAME`" in section or f"`{symbol}`" in section if symbol else "Symbols:" not in section


def test_no_other_module_makes_a_reply() -> None:
    """Else there would be one that the page does not know."""
    root = DOCS.parent.parent / "authmilter"
    makers = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"(?<![\w.])Reply\(", path.read_text(encoding="utf-8"))
    }
    assert makers == {"replies.py", "verdict.py", "milter/engine.py"}


def test_symbols_that_it_gives_weights_to_are_there() -> None:
    weighed = re.findall(r"`([a-z_]+) = [\d.]+`\s+in\s+`\[scores\]`", TEXT)
    assert len(weighed) > 5
    assert set(weighed) <= set(known_symbols())


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx.test", "-days", "2",
         "-keyout", key, "-out", cert],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return key, cert


def test_what_is_not_ours_is_what_postfix_says(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    require_rig()
    rows = [row[0] for row in MAKER.NOT_OURS]
    heard = []
    with Sink() as sink:
        # Nobody listens on the socket.
        with Postfix([f"unix:{tmp_path}/none.sock"], sink.port) as postfix, postfix.smtp() as client:
            heard.append(client.docmd("MAIL", "FROM:<a@example>"))
        key, cert = certificate
        tls = {"smtpd_tls_security_level": "encrypt", "smtpd_tls_key_file": str(key), "smtpd_tls_cert_file": str(cert)}
        with (
            Postfix([], sink.port, tls) as postfix,
            Client("127.0.0.1", postfix.port, local_hostname="client.test", timeout=30) as client,
        ):
            client.ehlo()
            heard.append(client.docmd("MAIL", "FROM:<a@example>"))
        with Postfix([], sink.port) as postfix, postfix.smtp("192.0.2.7") as client:
            assert client.docmd("MAIL", "FROM:<a@example>")[0] == 250
            code, text = client.docmd("RCPT", "TO:<b@elsewhere.invalid>")
            heard.append((code, text.replace(b"<b@elsewhere.invalid>: ", b"")))
    assert [f"{code} {text.decode()}" for code, text in heard] == rows
