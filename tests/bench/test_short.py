"""The benchmark's short form: right answers, no growth, and no more instructions per message than before."""

import gc
import sys
from pathlib import Path

import pytest

from authmilter.model import HeaderField
from authmilter.session import Rulebook
from tests.bench import instructions
from tests.bench.answers import EXPECTED, WrongAnswerError, check_dump, problem
from tests.bench.corpus import SIZES, Mail, generate, read, weighted
from tests.bench.session import check, check_all, one, rules, run

MAILS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus")
    generate(path, MAILS)
    return path


@pytest.fixture(scope="module")
def mails(folder: Path) -> list[Mail]:
    return read(folder)


@pytest.fixture
def rulebook(folder: Path) -> Rulebook:
    return rules(folder)


@pytest.mark.parametrize("kind", EXPECTED)
async def test_every_message_of_a_class_is_answered_as_it_has_to(
    kind: str, rulebook: Rulebook, mails: list[Mail]
) -> None:
    chosen = [mail for mail in mails if mail.kind == kind]
    assert len(chosen) >= MAILS // 10
    await check_all(rulebook, chosen)


def test_the_workload_has_all_sizes_that_are_cheap_to_make(mails: list[Mail]) -> None:
    assert {mail.size for mail in mails} == set(SIZES) - {"500 KB"}


async def test_a_wrong_answer_does_not_go_unseen(rulebook: Rulebook, mails: list[Mail]) -> None:
    good = next(mail for mail in mails if mail.kind == "pass")
    altered = good._replace(body=good.body + b"more\r\n")
    verdict = await one(rulebook, altered)
    with pytest.raises(WrongAnswerError, match="pass: dkim=fail instead of pass"):
        check(verdict, altered)


DUMP = (
    "MSG {0}.eml class={0} ip=192.0.2.1 from=<a@b.example>\n  INS[0] Authentication-Results: mx;{1}\n  VERDICT accept\n"
)


def dump(answers: dict[str, dict[str, str]]) -> str:
    return "".join(
        DUMP.format(kind, "".join(f"\\n\\t{method}={result};" for method, result in results.items()))
        for kind, results in answers.items()
    )


def test_a_dump_of_the_load_generator_with_all_classes_right_is_counted(tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(dump(EXPECTED))
    assert check_dump(tmp_path / "dump") == dict.fromkeys(EXPECTED, 1)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        pytest.param({**EXPECTED, "spffail": EXPECTED["pass"]}, "spf=pass instead of fail", id="a wrong result"),
        pytest.param({**EXPECTED, "pass": {"spf": "pass"}}, "dkim=missing instead of pass", id="no result"),
        pytest.param({"pass": EXPECTED["pass"]}, "no message of class", id="a class that is missing"),
    ],
)
def test_a_dump_is_refused_for(answers: dict[str, dict[str, str]], said: str, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(dump(answers))
    with pytest.raises(WrongAnswerError, match=said):
        check_dump(tmp_path / "dump")


def test_the_spf_result_of_helo_is_not_taken_for_that_of_mail_from() -> None:
    value = "mx; spf=none smtp.helo=a.example; spf=pass (it may; yes) smtp.mailfrom=b.example; dkim=pass; dmarc=pass"
    assert problem("pass", [value]) == ""


def test_the_weighted_mean_counts_sizes_by_their_share() -> None:
    assert weighted({"2 KB": 1.0, "10 KB": 2.0, "50 KB": 3.0, "500 KB": 4.0}) == pytest.approx(1.67)


async def test_messages_leave_no_memory_behind(folder: Path, mails: list[Mail]) -> None:
    rulebook = rules(folder)  # here: it takes away the handler by which pytest keeps every line of the log
    grown = []
    for _ in range(4):  # caches fill up; what leaks goes on growing
        gc.collect()
        before = sys.getallocatedblocks()
        await run(rulebook, mails, 1000)
        gc.collect()
        grown.append(sys.getallocatedblocks() - before)
    assert min(grown) < 100, f"{grown} blocks more after 1,000 messages each"


async def test_a_message_is_gone_without_the_cyclic_collector(folder: Path, mails: list[Mail]) -> None:
    """It runs so seldom that hundreds of megabytes would wait for it."""
    rulebook = rules(folder)
    html = b"<p>See <a href='https://a.example/'>this</a>.</p>\r\n"
    parts = b"--b\r\n\r\ntext\r\n--b\r\nContent-Type: text/html\r\n\r\n" + html + b"--b--\r\n"
    typed = HeaderField(b"Content-Type", b" multipart/alternative; boundary=b")
    mails = [*mails, mails[0]._replace(fields=(*mails[0].fields, typed), body=parts)]
    await run(rulebook, mails, len(mails))
    gc.collect()
    gc.disable()
    try:
        await run(rulebook, mails, len(mails))
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.skipif(not instructions.available(), reason="valgrind is not installed")
def test_a_message_takes_no_more_instructions_than_recorded(folder: Path) -> None:
    recorded = instructions.recorded()
    if recorded is None:
        pytest.skip(f"nothing recorded for Python {instructions.KEY}: {instructions.HOW}")
    figure = instructions.count(folder)
    assert figure < recorded * instructions.TOLERANCE, (
        f"{figure:,} instructions a message, recorded were {recorded:,}.  If that is the price of something wanted, "
        f"{instructions.HOW}"
    )
