"""Faults of our own surroundings that an attacker may wait for, or bring about."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from authmilter.config import ini
from authmilter.config.option import Seconds
from authmilter.config.schema import Config, Milter, Policy
from authmilter.errors import DnsTempError
from authmilter.interfaces import Answer
from authmilter.verdict import Action
from tests.attacks.catalogue import answers
from tests.attacks.site import (
    ATTACKER,
    VICTIM,
    VICTIM_IP,
    assert_clean,
    from_victim,
    play,
    zone,
)
from tests.auth.mail import NOW
from tests.fakes import FakeDNS


class Dead(FakeDNS):
    """No nameserver is reached."""

    async def query(self, name: str, rdtype: str) -> Answer:
        raise DnsTempError("no server reached")


class Silent(FakeDNS):
    """Nameservers say nothing."""

    async def query(self, name: str, rdtype: str) -> Answer:
        await asyncio.sleep(3600)
        raise AssertionError


@answers("resolver down")
@pytest.mark.parametrize("dns", [Dead, Silent])
@pytest.mark.parametrize(("preset", "action"), [("balanced", Action.ACCEPT), ("strict", Action.TEMPFAIL)])
async def test_without_dns_nothing_fails_and_nothing_passes(dns: type[FakeDNS], preset: str, action: Action) -> None:
    config = Config(
        policy=Policy(preset=preset),  # type: ignore[arg-type]
        milter=Milter(command_timeout=Seconds(0.1), message_timeout=Seconds(0.2)),
    )
    played = await asyncio.wait_for(play(from_victim().signed(VICTIM), dns=dns(), config=config), 10)
    assert played.verdict.action is action
    if played.verdict.reply:
        assert played.verdict.reply.code == 451
    words = {result.result.value for result in played.outcome.tx.results}
    assert words == {"temperror"}
    assert_clean(played, ())


@answers("clock one hour off")
@pytest.mark.parametrize("hours", [-1, 1], ids=["slow", "fast"])
async def test_a_clock_that_is_wrong_refuses_no_mail_that_spf_vouches_for(hours: int) -> None:
    """A signature may seem to be from the future, or expired: that is `policy`, and DMARC still has SPF."""
    message = from_victim().signed(VICTIM, t=str(NOW), x=str(NOW + 1800))
    played = await play(
        message, now=NOW + hours * 3600, ip=VICTIM_IP, sender=f"<admin@{VICTIM}>", helo=f"mail.{VICTIM}"
    )
    assert played.words("dkim") == "policy"
    assert played.words("dmarc") == "pass"
    assert played.verdict.action is Action.ACCEPT
    assert_clean(played, (VICTIM,))


@answers("clock one hour off")
async def test_a_few_minutes_are_forgiven() -> None:
    message = from_victim().signed(VICTIM, t=str(NOW), x=str(NOW + 60))
    for seconds in (-200, 200):
        played = await play(message, now=NOW + seconds)
        assert played.words("dkim") == "pass"
        assert_clean(replace(played), (VICTIM, ATTACKER))


LISTED = "7.2.0.192.bad.example A"  # the victim's server, whom the attacker would like to be refused
LISTS = "[dnsbl bad]\nzone = bad.example\nscore = reject\n"


@answers("DNSBL with odd answers")
@pytest.mark.parametrize(
    "records",
    [
        {LISTED: ["127.255.255.254"]},
        {LISTED: ["0.0.0.0"]},
        {LISTED: ["203.0.113.80"]},
        {LISTED: ["127.0.0.2", "203.0.113.80"]},
        {LISTED: ["127.0.0.1"]},
        {LISTED: ["127.0.0.2"], "1.0.0.127.bad.example A": ["127.0.0.2"]},
    ],
    ids=["it refuses questions", "0.0.0.0", "its domain was sold", "partly", "no listing", "it lists the world"],
)
async def test_a_blocklist_out_of_order_costs_no_mail(records: dict[str, list[str]]) -> None:
    played = await play(
        from_victim().signed(VICTIM),
        dns=zone(records),
        config=ini.load(None, LISTS),
        ip=VICTIM_IP,
        sender=f"<admin@{VICTIM}>",
        helo=f"mail.{VICTIM}",
    )
    assert played.verdict.action is Action.ACCEPT
    assert not [finding for _, finding in played.outcome.tx.findings if finding.symbol.startswith("dnsbl_")]
    assert_clean(played, (VICTIM,))


@answers("DNSBL with odd answers")
async def test_a_blocklist_in_order_refuses_by_its_own_words() -> None:
    played = await play(
        from_victim().signed(VICTIM),
        dns=zone({LISTED: ["127.0.0.2"]}),
        config=ini.load(None, LISTS + "url = https://bad.example/?{ip}"),
        ip=VICTIM_IP,
        sender=f"<admin@{VICTIM}>",
        helo=f"mail.{VICTIM}",
    )
    reply = played.verdict.reply
    assert reply is not None
    assert (reply.code, reply.enhanced) == (550, "5.7.1")
    words = "Client 192.0.2.7 is listed by bad.example (127.0.0.2), see https://bad.example/?192.0.2.7 ["
    assert reply.text.startswith(words)


async def test_the_key_of_a_blocklist_is_used_and_shows_nowhere(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    key.chmod(0o600)
    text = f"{LISTS}key_file = {key}\n[dnsbl dead]\nzone = dead.example\nkey_file = {key}"
    played = await play(
        from_victim().signed(VICTIM),
        dns=zone({"7.2.0.192.s3cret.bad.example A": ["127.0.0.2"]}, ["7.2.0.192.s3cret.dead.example A"]),
        config=ini.load(None, text),
        ip=VICTIM_IP,
        sender=f"<admin@{VICTIM}>",
        helo=f"mail.{VICTIM}",
    )
    assert played.verdict.because == ("dnsbl_bad",)
    assert isinstance(played.dns, FakeDNS)
    assert "7.2.0.192.s3cret.dead.example A" in played.dns.asked
    assert "s3cret" not in f"{played.verdict} {played.outcome.tx} {played.log}"
