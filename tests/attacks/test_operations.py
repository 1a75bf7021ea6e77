"""Faults of our own surroundings that an attacker may wait for, or bring about."""

import asyncio
from dataclasses import replace

import pytest

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
