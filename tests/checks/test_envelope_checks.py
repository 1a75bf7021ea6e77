"""The checks of MAIL and RCPT in a session: what each recipient hears, and what is left at the end."""

from collections.abc import Sequence

import pytest

from authmilter.config import ini
from authmilter.model import Stage
from authmilter.session import Session
from authmilter.verdict import Action
from tests.checks.verdicts import STRICT
from tests.fakes import FakeDNS
from tests.test_session import Rig

ZONE = {
    "example.org MX": ["10 mail.example.org"],
    "example.org TXT": ["v=spf1 ip4:192.0.2.0/24 -all"],
    "7.2.0.192.in-addr.arpa PTR": ["mail.example.org"],
    "mail.example.org A": ["192.0.2.7"],
    "null.example MX": ["0 ."],
}


def rig(config: str) -> Rig:
    return Rig(ini.load(None, config), FakeDNS(ZONE))


async def begun(given: Rig, sender: str = "<alice@example.org>", login: bytes = b"") -> Session:
    session = given.session()
    macros = {b"j": b"mx.test", b"{auth_authen}": login}
    await session.connect(b"client", "4", 40000, b"192.0.2.7", macros)
    await session.helo(b"mail.example.org", macros)
    assert (await session.mail([sender.encode()], macros)).action is Action.CONTINUE
    return session


async def replies(session: Session, recipients: Sequence[str]) -> list[str]:
    """What the client hears, without text; "" for a recipient that is accepted."""
    heard = []
    for recipient in recipients:
        reply = (await session.rcpt([f"<{recipient}>".encode()], {})).reply
        heard.append(f"{reply.code} {reply.enhanced}" if reply else "")
    return heard


async def test_recipients_beyond_the_limit_are_deferred_and_the_others_get_the_message() -> None:
    given = rig("[recipients]\nmax_per_message = 2\n")
    session = await begun(given)
    assert await replies(session, ["a@d", "b@d", "c@d", "d@d"]) == ["", "", "452 4.5.3", "452 4.5.3"]
    assert (await session.end_of_message({})).action is not Action.TEMPFAIL
    assert [str(path.local_part, "ascii") for path in given.outcomes[0].tx.envelope.forward_paths] == ["a", "b"]
    assert "too_many_recipients" not in [finding.symbol for _, finding in given.outcomes[0].tx.findings]


async def test_a_bounce_to_several_weighs_once_and_strictly_reaches_the_first_alone() -> None:
    recipients = ["a@d", "b@d", "c@d"]
    given = rig("")
    session = await begun(given, "<>")
    assert await replies(session, recipients) == ["", "", ""]
    await session.end_of_message({})
    assert [name for name, _ in given.outcomes[0].ruling.scored].count("bounce_recipients") == 1
    assert await replies(await begun(rig(STRICT), "<>"), recipients) == ["", "550 5.7.1", "550 5.7.1"]


async def test_what_is_over_the_rate_is_deferred_at_data_with_all_its_recipients() -> None:
    given = rig("[sender_rate]\nmessages = 1/1h\n")
    session = await begun(given)
    assert await replies(session, ["a@d", "b@d"]) == ["", ""]
    assert (await session.data({})).action is Action.CONTINUE
    await session.end_of_message({})
    await session.mail([b"<alice@example.org>"], {})
    assert await replies(session, ["a@d", "b@d"]) == ["", ""]
    reply = (await session.data({})).reply
    assert reply is not None
    assert f"{reply.code} {reply.enhanced}" == "451 4.7.28"


async def test_what_greylisting_defers_does_not_count_for_the_rate() -> None:
    given = rig("[sender_rate]\nmessages = 1/1h\n[greylist]\nenabled = yes\nwho = all\nexcept_recipients = b@d\n")
    session = await begun(given)
    for _ in range(3):
        assert await replies(session, ["a@d"]) == ["451 4.7.1"]
        await session.data({})  # Postfix itself refuses it then; not every MTA need do so
        session.abort()
        await session.mail([b"<alice@example.org>"], {})
    assert await replies(session, ["a@d", "b@d"]) == ["451 4.7.1", ""]
    assert (await session.data({})).action is Action.CONTINUE


async def test_a_trap_spoils_the_message_for_all_without_a_word_before_its_end() -> None:
    given = rig("[spamtraps]\naddresses = trap@d\n[policy]\nreject = 8\n")
    session = await begun(given)
    assert await replies(session, ["a@d", "trap@d", "b@d"]) == ["", "", ""]
    verdict = await session.end_of_message({})
    assert verdict.action is Action.REJECT
    assert verdict.reply is not None
    assert "trap" not in verdict.reply.text


async def test_a_recipient_that_accepts_no_mail_is_refused_and_the_others_are_not() -> None:
    session = await begun(rig("[recipient_domain]\nenabled = yes\n"), login=b"alice")
    recipients = ["a@example.org", "b@null.example", "c@nowhere.example"]
    assert await replies(session, recipients) == ["", "556 5.1.10", "550 5.1.2"]
    session = await begun(rig("[recipient_domain]\nenabled = yes\n"))
    assert await replies(session, recipients) == ["", "", ""]  # mail from outside is somebody else's to send


@pytest.mark.parametrize(
    ("sender", "fail", "expected"),
    [
        ("<a@nowhere.example>", [], "550 5.1.8"),
        ("<a@null.example>", [], "550 5.7.27"),
        ("<a@down.example>", ["down.example MX"], "451 4.1.8"),
        ("<a b@example.org>", [], "501 5.1.7"),
    ],
)
async def test_the_preset_strict_refuses_at_mail_what_the_usual_one_weighs(
    sender: str, fail: list[str], expected: str
) -> None:
    given = Rig(ini.load(None, STRICT), FakeDNS(ZONE, fail))
    verdict = await given.play(sender=sender)
    assert verdict.reply is not None
    assert f"{verdict.reply.code} {verdict.reply.enhanced}" == expected
    assert given.outcomes[0].stage is Stage.MAIL
    given = Rig(ini.load(None, ""), FakeDNS(ZONE, fail))
    assert (await given.play(sender=sender)).action is not Action.TEMPFAIL
    assert given.outcomes[0].stage is Stage.EOM


@pytest.mark.parametrize("sender", ["<a@nowhere.example>", "<a b@example.org>", "<a@null.example>"])
async def test_users_of_ours_are_not_asked(sender: str) -> None:
    given = rig(STRICT)
    assert (await given.play(sender=sender, macros={b"{auth_authen}": b"alice"})).action is Action.ACCEPT
    assert given.outcomes[0].tx.findings == ()
