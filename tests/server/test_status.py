"""What /status says: the day, what is wrong now, and the counters."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from authmilter.check import all_checks
from authmilter.config import ini
from authmilter.metrics import Layout, Metrics, Shared, layout_for
from authmilter.model import Stage
from authmilter.server.board import Board
from authmilter.server.status import TICK, Status

BERLIN = ZoneInfo("Europe/Berlin")
CONFIG = "[dnsbl zen]\nzone = zen.example\n"


def local(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


class Daemon:
    """Counters of a supervisor and two workers, and a clock."""

    def __init__(self, now: str = "2026-03-10 12:00:00") -> None:
        self.layout: Layout = layout_for(all_checks(), ini.load(None, CONFIG))
        self.shared = Shared(3, self.layout)
        self.supervisor, *self.workers = (Metrics(self.shared, slot, self.layout) for slot in range(3))
        self.now = local(now)
        self.ticks = 1000.0
        self.supervisor.set("started", self.ticks)
        self.supervisor.set("authmilter_config_last_reload_successful", 1.0)
        for worker in self.workers:
            worker.set("accepting", 1.0)
            worker.set("heartbeat", self.ticks)
        self.status = self.exporter()

    def exporter(self) -> Status:
        return Status(self.shared, self.layout, clock=lambda: self.now, ticks=lambda: self.ticks)

    def run(self, seconds: float) -> None:
        """Time passes, and the exporter looks at the clock when it wants to."""
        end = self.ticks + seconds
        while self.ticks < end:
            step = min(self.status.tick(), end - self.ticks)
            self.ticks += step
            self.now += step
            for worker in self.workers:
                worker.set("heartbeat", self.ticks)

    def mail(self, number: int = 1, direction: str = "inbound", action: str = "accept") -> None:
        for _ in range(number):
            self.workers[number % 2].verdict(direction, action, Stage.EOM, None)

    def report(self) -> dict[str, Any]:
        return self.status.report()

    @property
    def accepted(self) -> int:
        return int(self.report()["today"]["messages"]["inbound"]["accept"])


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_all_is_well() -> None:
    daemon = Daemon()
    daemon.run(90)
    report = daemon.report()
    assert report["problems"] == []
    assert (report["program"], report["uptime"]) == ("authmilter", 90.0)
    assert report["workers"] == {"configured": 2, "accepting": 2, "standing_still": 0, "restarts": 0}
    assert report["reload"]["seconds_ago"] is None


# -- the day ----------------------------------------------------------------------------------------------------------


def test_verdicts_by_direction_and_action() -> None:
    daemon = Daemon()
    daemon.mail(3)
    daemon.mail(2, "outbound", "tempfail")
    daemon.workers[0].verdict("inbound", "reject", Stage.MAIL, None)
    daemon.workers[1].verdict("inbound", "reject", Stage.EOM, 20.0)
    daemon.workers[1].recipient_refused(451)
    today = daemon.report()["today"]
    assert (today["since"], today["whole_day"]) == (daemon.now, False)
    assert today["recipients_refused"] == {"4xx": 1, "5xx": 0}
    assert {k: v for k, v in today["messages"]["inbound"].items() if v} == {"accept": 3, "reject": 2}
    assert {k: v for k, v in today["messages"]["outbound"].items() if v} == {"tempfail": 2}


def test_midnight_begins_anew() -> None:
    daemon = Daemon("2026-03-10 23:59:00")
    daemon.mail(5)
    daemon.workers[0].recipient_refused(550)
    daemon.run(59)
    assert daemon.accepted == 5
    daemon.run(2)
    assert daemon.accepted == 0
    daemon.mail(2)
    assert daemon.report()["today"]["recipients_refused"] == {"4xx": 0, "5xx": 0}
    today = daemon.report()["today"]
    assert today["messages"]["inbound"]["accept"] == 2
    assert today["whole_day"]
    assert 0 <= today["since"] - local("2026-03-11 00:00:00") < 0.1


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)], ids=["when summer time begins", "when it ends"]
)
def test_a_day_is_not_always_24_hours(day: str, hours: int) -> None:
    daemon = Daemon(f"{day} 00:00:01")
    daemon.mail(5)
    daemon.run(hours * 3600 - 2)
    assert daemon.accepted == 5
    daemon.run(2)
    assert daemon.accepted == 0
    assert daemon.report()["today"]["whole_day"]


def test_where_midnight_does_not_exist_the_day_begins_at_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Africa/Cairo")
    time.tzset()
    daemon = Daemon()
    daemon.now = datetime(2026, 4, 23, 23, 59, tzinfo=ZoneInfo("Africa/Cairo")).timestamp()
    daemon.status = daemon.exporter()
    daemon.mail(5)
    daemon.run(59)
    assert daemon.accepted == 5
    daemon.run(2)
    assert daemon.accepted == 0


def test_a_clock_set_ahead_to_another_day_begins_anew_and_says_since_when() -> None:
    daemon = Daemon("2026-03-10 12:00:00")
    daemon.mail(5)
    daemon.now += 3 * 86400
    assert daemon.accepted == 0
    today = daemon.report()["today"]
    assert (today["since"], today["whole_day"]) == (local("2026-03-13 12:00:00"), False)


def test_a_clock_set_back_to_another_day_begins_anew() -> None:
    daemon = Daemon("2026-03-10 12:00:00")
    daemon.mail(5)
    daemon.now -= 86400
    assert daemon.accepted == 0
    daemon.mail(1)
    daemon.run(12 * 3600 + 1)
    daemon.mail(2)
    assert daemon.accepted == 2


def test_a_clock_set_by_an_hour_within_the_day_changes_nothing() -> None:
    daemon = Daemon("2026-03-10 12:00:00")
    daemon.mail(5)
    daemon.now += 3600
    daemon.run(60)
    daemon.now -= 7200
    daemon.run(60)
    assert daemon.accepted == 5


def test_an_exporter_that_was_replaced_counts_from_then_on() -> None:
    daemon = Daemon("2026-03-10 12:00:00")
    daemon.mail(5)
    daemon.run(3600)
    daemon.status = daemon.exporter()
    daemon.mail(2)
    today = daemon.report()["today"]
    assert (today["since"], today["messages"]["inbound"]["accept"]) == (local("2026-03-10 13:00:00"), 2)


def test_it_is_not_woken_more_often_than_it_says() -> None:
    daemon = Daemon("2026-03-10 12:00:00")
    assert daemon.status.tick() == TICK
    daemon.now = local("2026-03-10 23:59:50")
    assert daemon.status.tick() == pytest.approx(10.01)
    daemon.now = local("2026-03-11 00:00:00")
    assert daemon.status.tick() == TICK


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_workers_that_do_not_accept() -> None:
    daemon = Daemon()
    daemon.workers[0].set("accepting", 0.0)
    daemon.supervisor.worker_restarted()
    assert daemon.report()["problems"] == ["only 1 of 2 workers accept connections"]
    assert daemon.report()["workers"]["restarts"] == 1
    daemon.workers[1].set("accepting", 0.0)
    assert daemon.report()["problems"] == ["no worker accepts connections"]


def test_a_worker_that_stands_still() -> None:
    daemon = Daemon()
    daemon.ticks += 11
    daemon.workers[0].set("heartbeat", daemon.ticks - 0.5)
    assert daemon.report()["problems"] == ["1 of 2 workers stand still"]


def test_the_last_reload() -> None:
    daemon = Daemon()
    daemon.supervisor.reloaded(success=False)
    daemon.supervisor.set("reloaded", daemon.ticks)
    daemon.run(300)
    assert daemon.report()["problems"] == ["the last reload failed, and the configuration before it is in force"]
    assert daemon.report()["reload"] == {"successes": 0, "failures": 1, "last_successful": False, "seconds_ago": 300.0}
    daemon.supervisor.reloaded(success=True)
    assert daemon.report()["problems"] == []


def test_errors_of_the_store_are_wrong_for_a_minute_or_so() -> None:
    daemon = Daemon()
    daemon.run(3600)
    for worker in daemon.workers:
        worker.store_error("get")
    assert daemon.report()["problems"] == ["the store failed 2 times in the last minute or so"]
    daemon.run(55)
    assert daemon.report()["store"]["errors_lately"] == 2
    daemon.run(65)
    assert daemon.report()["problems"] == []
    assert daemon.report()["store"]["errors"]["get"] == 2


def test_errors_right_after_the_start_count_too() -> None:
    daemon = Daemon()
    daemon.workers[0].store_error("open")
    assert daemon.report()["store"]["errors_lately"] == 1


def test_a_scanner_that_does_not_answer_is_wrong_for_a_minute_or_so() -> None:
    daemon = Daemon()
    daemon.run(3600)
    for worker in daemon.workers:
        worker.check_error("antivirus", "temperror")
        worker.check_error("spf", "temperror")  # as happens: somebody's DNS
    daemon.workers[0].check_error("rspamd", "temperror")
    assert daemon.report()["problems"] == [
        "failed requests to antivirus in the last minute or so: 2; the log says why",
        "failed requests to rspamd in the last minute or so: 1; the log says why",
    ]
    daemon.run(120)
    report = daemon.report()
    assert report["problems"] == []
    assert report["scanners"]["antivirus"] == {"errors": 2, "errors_lately": 0}
    assert report["scanners"]["spamassassin"] == {"errors": 0, "errors_lately": 0}


def test_a_dns_list_that_is_off() -> None:
    daemon = Daemon()
    daemon.workers[0].dnslist_asked("dnsbl_zen", "listed")
    daemon.workers[1].dnslist_asked("dnsbl_zen", "clear")
    daemon.workers[1].dnslist_asked("dnsbl_zen", "clear")
    assert daemon.report()["problems"] == []
    daemon.workers[1].dnslist_off("dnsbl_zen", True)
    found = daemon.report()
    assert found["problems"] == ["DNS list dnsbl_zen is off in 1 of 2 workers"]
    assert found["dns_lists"] == {
        "dnsbl_zen": {
            "off_in_workers": 1,
            "answers": {"listed": 1, "clear": 2, "error": 0, "temperror": 0, "off": 0},
        }
    }


# -- the DNS ----------------------------------------------------------------------------------------------------------


def questions(daemon: Daemon, number: int, reason: str = "") -> None:
    """So many of each worker, answered unless there is a reason."""
    for worker in daemon.workers:
        for _ in range(number):
            if reason:
                worker.dns_failure(reason)
            worker.dns_query("TXT", "temperror" if reason else "ok", 0.1)


def test_questions_that_failed_count_for_five_minutes() -> None:
    daemon = Daemon()
    daemon.run(3600)
    questions(daemon, 15, "timeout")
    questions(daemon, 4, "servfail")
    questions(daemon, 11)
    questions(daemon, 500, "busy")  # which says nothing of the nameservers
    found = daemon.report()["dns"]
    assert found["lately"] == {
        "seconds": 330.0,
        "asked": 60,
        "failed": 38,
        "reasons": {"timeout": 30, "unreachable": 0, "servfail": 8, "refused": 0, "broken": 0},
    }
    assert daemon.report()["problems"] == [found["problem"]]
    assert found["problem"].startswith(
        "of 60 questions to the DNS in the last 5 minutes 38 failed (timeout 30, servfail 8), though the nameservers work: "
    )
    daemon.run(290)
    assert daemon.report()["dns"]["lately"]["failed"] == 38
    daemon.run(70)
    assert (daemon.report()["dns"]["lately"]["failed"], daemon.report()["problems"]) == (0, [])
    assert daemon.report()["dns"]["questions"]["temperror"] == 1038


@pytest.mark.parametrize(("answered", "failed"), [(0, 9), (12, 10)], ids=["few questions", "less than half"])
def test_some_questions_always_fail(answered: int, failed: int) -> None:
    daemon = Daemon()
    questions(daemon, answered)
    questions(daemon, failed, "servfail")
    assert daemon.report()["problems"] == []


def test_nameservers_are_named_where_a_worker_told_them() -> None:
    daemon = Daemon()
    board = Board()
    daemon.status = Status(daemon.shared, daemon.layout, board, clock=lambda: daemon.now, ticks=lambda: daemon.ticks)
    board.write({"nameservers": ["127.0.0.1", "::1"], "keys": []})
    questions(daemon, 3, "timeout")
    daemon.workers[0].dns_down(daemon.ticks, daemon.ticks)
    daemon.run(72)
    (problem,) = daemon.report()["problems"]
    assert problem == (
        "the nameservers 127.0.0.1, ::1 do not answer: down for 72s; 6 of 6 questions in the last 5 minutes failed (timeout 6): "
        "see whether they run, and whether the firewall lets port 53 through; until then SPF, DKIM and DMARC end in temperror"
    )
    daemon.workers[1].dns_works(daemon.ticks)
    daemon.run(10)  # the first worker does not know of it, since it has not tried again
    assert daemon.report()["problems"] == []
    daemon.workers[0].dns_down(1000.0, daemon.ticks)
    daemon.run(5)
    assert daemon.report()["dns"]["down_seconds"] == 15.0, "since the answer that the other worker got"


def test_a_worker_that_died_without_answers_leaves_nothing_behind() -> None:
    daemon = Daemon()
    daemon.workers[0].dns_down(daemon.ticks, daemon.ticks)
    daemon.run(5)
    assert daemon.report()["dns"]["down_seconds"] == 5.0
    Metrics(daemon.shared, 1, daemon.layout)
    assert daemon.report()["dns"]["down_seconds"] == 0.0


# -- keys -------------------------------------------------------------------------------------------------------------


def key(number: int, state: str) -> dict[str, Any]:
    return {
        "section": f"sign d{number}.example", "domain": f"d{number}.example", "selector": "s", "algorithm": "rsa-sha256",
        "bits": 2048, "loaded": 1.7e9, "state": state, "detail": f"s._domainkey.d{number}.example does not exist",
        "looked": 990.0,
    }  # fmt: skip


def test_keys_that_nobody_can_verify_are_named_and_those_beyond_are_counted() -> None:
    daemon = Daemon()
    board = Board()
    daemon.status = Status(daemon.shared, daemon.layout, board, clock=lambda: daemon.now, ticks=lambda: daemon.ticks)
    listed = [key(0, "mismatch"), *(key(number, "missing") for number in range(1, 8)), key(8, "unknown")]
    board.write({"nameservers": [], "keys": listed})
    daemon.workers[0].signing_keys([*(one["state"] for one in listed), *["missing"] * 400, "published"])
    found = daemon.report()
    assert found["keys"]["states"] == {"published": 1, "mismatch": 1, "missing": 407, "unknown": 1}
    assert found["keys"]["listed"][0]["looked_seconds_ago"] == 10.0
    assert len(found["keys"]["listed"]) == 9
    assert found["problems"][0] == (
        "signatures of d0.example with selector s can't be verified: s._domainkey.d0.example does not exist; "
        "publish the key of [sign d0.example], or take it out there"
    )
    assert [problem[:24] for problem in found["problems"][:5]] == [f"signatures of d{n}.example" for n in range(5)]
    assert found["problems"][5:] == ["as many signing keys more are not published as they should be: 403"]
    daemon.workers[0].signing_keys(["published"])
    board.write({"nameservers": [], "keys": [key(0, "published")]})
    assert daemon.report()["problems"] == []


# -- counters ---------------------------------------------------------------------------------------------------------


def test_counters_of_all_workers() -> None:
    daemon = Daemon()
    for worker in daemon.workers:
        worker.connection_opened()
        worker.dns_cache("hit")
        worker.dns_query("A", "ok", 0.01)
        worker.dns_query("MX", "ok", 0.01)
    daemon.workers[0].connection_closed()
    daemon.workers[0].connection_refused()
    daemon.workers[0].dns_cache("miss")
    daemon.workers[0].dns_query("TXT", "nxdomain", 0.01)
    daemon.workers[0].alarm("outbound_limit", "failure")
    report = daemon.report()
    assert report["connections"] == {"active": 1, "total": 2, "refused": 1}
    assert report["dns"]["cache"] == {"hit": 2, "miss": 1}
    assert report["dns"]["questions"] == {"ok": 4, "nxdomain": 1, "nodata": 0, "temperror": 0}
    assert report["alarms"]["outbound_limit"] == {"success": 0, "failure": 1, "dropped": 0}
    assert "other" not in report["alarms"]
