"""Every command and every block of lines that a page shows is run by a test, or is named here with the reason why it is not.

A new one fails here until a test has it.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.shared import ROOT

PAGES = [
    ROOT / "README.md",
    # Of the queries of Grafana test_prometheus.py runs each, and compares the list.
    *sorted(set((ROOT / "contrib").rglob("*.md")) - {ROOT / "contrib/grafana/panels.md"}),
    ROOT / "packaging/debian/README.Debian",
]


class Read(NamedTuple):
    """The test takes the text from the page: whatever it becomes is run."""

    test: str


class Same(NamedTuple):
    """The test does the same by words of its own.  `text` is what the page says, so that no change of it goes unseen."""

    text: str
    test: str


class NotRun(NamedTuple):
    """No test runs it."""

    text: str
    reason: str


Proof = Read | Same | NotRun


class Block(NamedTuple):
    """Lines that a reader may copy."""

    heading: str  # the nearest above
    first: str  # line, cut after 56 characters
    text: str


def found_in(page: str) -> list[Block]:
    """All blocks of a page: between backticks, or indented below an empty line.

    An indented line that begins a comment with the name of a file begins a block.
    """
    found: list[Block] = []
    heading, fenced, last = "", False, ""
    lines: list[str] | None = None

    def end() -> None:
        nonlocal lines
        text = "\n".join(line.strip() for line in lines or ()).strip()
        if text:
            found.append(Block(heading, text.partition("\n")[0][:56].strip(), text))
        lines = None

    for line in page.splitlines():
        if fenced or line.startswith("```"):
            if line.startswith("```"):
                end()
                fenced = not fenced
                lines = [] if fenced else None
            elif lines is not None:
                lines.append(line)
        elif line.startswith("    ") and (lines is not None or not last.strip()):
            if re.match(r"\s+[#;] /", line):
                end()
            lines = [*(lines or []), line]
        elif lines is not None and not line.strip():
            lines.append(line)
        else:
            end()
            if line.startswith("#"):
                heading = line.lstrip("#").strip()
        last = line
    end()
    return found


def commands_in(page: str) -> set[str]:
    """What stands between backticks within the text and looks like a command: a word, and another that is no `=`."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page)
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))
    return {span for span in spans if re.match(r"[a-z~./][\w./-]* (?!=)", span)}


@cache
def functions_of(file: str) -> frozenset[str]:
    """Names of the tests of a module."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_")


POSTFIX, RELAYS = "tests/contrib/test_postfix.py", "tests/contrib/test_relays.py"
START, MIGRATION = "tests/packaging/test_start.py", "tests/packaging/test_migration.py"
README = "tests/contrib/test_readme.py"
LOADED = Read("tests/test_readme.py::test_the_configurations_load_without_a_warning")
FIRST = Read(f"{README}::test_the_first_configuration_signs_and_refuses_nothing")
BOTH = Read(f"{RELAYS}::test_mail_is_signed_by_both_and_passes_by_both_and_with_tracking_by_the_providers")
ONE_PATH = Read(f"{POSTFIX}::test_mail_of_all_ways_is_examined_or_signed_with_one_relative_path")
TAUGHT = Read(f"{README}::test_the_classifier_learns_and_is_judged_by_the_commands")
MILTERS = Read(f"{POSTFIX}::test_several_milters_see_what_those_before_them_did")
FILTER = Read(f"{POSTFIX}::test_a_content_filter_finds_results_and_each_message_is_examined_once")
MAP = Read(f"{POSTFIX}::test_clients_of_the_map_pass_by")
EXIM = Read(f"{README}::test_the_lines_of_the_gateway_are_those_that_exim_is_tested_with")
BANNED = Read(f"{START}::test_fail2ban_bans_who_is_refused_again_and_again")
SECURE = f"{START}::test_the_check_list_of_security_finds_nothing_wrong"
SENDMAIL_LINE = (
    "INPUT_MAIL_FILTER(`authmilter', `S=unix:/run/authmilter/authmilter.sock, F=T, T=C:30s;S:30s;R:90s;E:5m')dnl"
)
LINE = Read(f"{README}::test_the_line_for_sendmail_is_the_same_everywhere")

BLOCKS: dict[str, dict[tuple[str, str], Proof]] = {
    "README.md": {
        ("Start", "packaging/run             # installs what is needed into"): Same(
            "packaging/run             # installs what is needed into .venv, then serves on 127.0.0.1:8891\n"
            "tests/run                 # the same with what the tests need, then all tests\n"
            "PATH=$PWD/.venv/bin:$PATH # where the commands below are",
            # tests/run is what runs all of this.
            "tests/rig/test_commands.py::test_packaging_run_starts_in_seconds_becomes_the_daemon_and_ends_with_0",
        ),
        ("First configuration for Postfix", "smtpd_milters = inet:127.0.0.1:8891"): FIRST,
        ("First configuration for Postfix", "[policy]"): FIRST,
        ("First configuration for Postfix", "cd /etc/authmilter/keys                       # mkdir -p"): FIRST,
    },
    "contrib/docs/policy.md": {
        ("Forwarded mail, lists, and exceptions", "[forwarders]"): LOADED,
        ("Forwarded mail, lists, and exceptions", "[dmarc override gmail.com]            ; another policy t"): LOADED,
        ("Before DATA: lists, greylisting, limits", "[dnsbl zen]                           ; any list, under"): LOADED,
        ("Content", "[identity]"): LOADED,
        ("Content", 'require "fileinto";'): Read(f"{START}::test_the_sieve_of_the_page_puts_aside_what_is_marked"),
        ("Content", "[antivirus]                           ; clamd: 554 5.7.1"): LOADED,
    },
    "contrib/docs/classifier.md": {
        ("Teach it what is spam here", "authmilter learn ham ~alice/Maildir/.Archive /var/mail/b"): TAUGHT,
        ("Teach it what is spam here", "authmilter evaluate ~alice/Maildir/.Archive ~alice/Maild"): TAUGHT,
    },
    "contrib/docs/migration.md": dict.fromkeys(
        [
            ("An example", "Mode                sv"),
            ("An example", "s2024._domainkey.example.org example.org:s2024:/etc/open"),
            ("An example", "*@example.org       s2024._domainkey.example.org"),
            ("An example", "127.0.0.1"),
            ("An example", "AuthservID                  mx.example.org"),
            ("An example", "TestOnly = 1"),
            ("An example", "smtpd_milters = unix:opendkim/opendkim.sock, unix:opendm"),
            ("An example", "[milter]"),
            ("1. Install, and copy the keys", "install -o authmilter -m 600 /etc/opendkim/keys/example."),
            ("2. Let it look on", "authmilter check-config"),
            ("3. Compare", "journalctl -u authmilter --no-pager --grep action=reject"),
            ("4. Switch", "authmilter check-config"),
            ("4. Switch", "postconf -e 'smtpd_recipient_restrictions = permit_mynet"),
            ("5. Stop the old programs", "systemctl disable --now opendkim opendmarc"),
            ("5. Stop the old programs", "systemctl enable --now opendkim opendmarc"),
            ("6. Enforce", "sed -i '/^enforce = no/d' /etc/authmilter/authmilter.ini"),
            ("6. Enforce", "apt-get purge --yes opendkim opendmarc postfix-policyd-s"),
        ],
        Read(f"{MIGRATION}::test_every_block_of_the_page_is_used"),
    ),
    "contrib/docs/start-postfix.md": {
        ("1. Install", "apt-get update"): NotRun(
            "apt-get update\napt-get install --no-install-recommends postfix openssl build-essential debhelper libmilter-dev"
            " python3-dev python3-venv ca-certificates",
            "the machine of the test has no network; that these packages are those that the build needs is compared",
        ),
        **dict.fromkeys(
            [
                ("1. Install", "packaging/build deb /tmp/authmilter"),
                ("1. Install", "apt-get install --yes --no-install-recommends /tmp/authm"),
                ("2. Tell Postfix", "postconf -e 'myhostname = mx.example.org' 'mydestination"),
                ("3. Make a key, and publish it", "cd /etc/authmilter/keys"),
                ("3. Make a key, and publish it", 'example.org. TXT "v=spf1 mx -all"'),
                ("4. Sign", "cat >>/etc/authmilter/authmilter.ini <<'END'"),
                ("5. See that it works", "printf 'From: root@example.org\\nTo: root@example.org\\nSu"),
                ("5. See that it works", "tail -n +2 /var/mail/root >/tmp/first.eml"),
                ("5. See that it works", "printf 'From: root@example.org\\nSubject: forged\\n\\nHello"),
                ("6. Look at the log for some days", "journalctl -u authmilter --since '7 days ago' --grep act"),
                ("6. Look at the log for some days", "journalctl -u authmilter --since '7 days ago' -o cat | a"),
                ("7. Enforce", "sed -i '/^enforce = no/d' /etc/authmilter/authmilter.ini"),
                ("7. Enforce", "postconf -e 'milter_default_action = tempfail'"),
                ("Take it out again", "postconf -X smtpd_milters non_smtpd_milters internal_mai"),
            ],
            Read(f"{START}::test_every_block_of_the_page_is_run_or_named_as_not_run"),
        ),
    },
    "contrib/docs/start-sendmail.md": {
        ("Install", "apt-get update"): NotRun(
            "apt-get update\napt-get install --no-install-recommends sendmail sendmail-cf make openssl build-essential debhelper"
            " libmilter-dev python3-dev python3-venv ca-certificates",
            "the machine of the test has no network; its packages are taken from the command",
        ),
        **dict.fromkeys(
            [
                ("Install", "packaging/build deb /tmp/authmilter"),
                ("Install", "apt-get install --yes --no-install-recommends /tmp/authm"),
                ("Receive mail", "sed -i '/Name=MTA-v4/s/, Addr=127.0.0.1//' /etc/mail/sen"),
                ("The socket", "sed -i 's|^socket = .*|socket = unix:/run/authmilter/aut"),
                ("The socket", "authmilter check-config"),
                ("Tell Sendmail", SENDMAIL_LINE[:56]),
                ("Tell Sendmail", "make -C /etc/mail"),
                ("Take it out again", 'sed -i "/^INPUT_MAIL_FILTER(.authmilter\'/d" /etc/mail/se'),
            ],
            Read("tests/packaging/test_start_sendmail.py::test_every_block_of_the_page_is_run_or_named_as_not_run"),
        ),
    },
    "contrib/fail2ban/README.md": {
        ("fail2ban", "journalctl -u authmilter -o short-iso >authmilter.log"): BANNED,
        ("fail2ban", "# /etc/fail2ban/jail.d/sshd.local"): BANNED,
        ("Who is banned", 'filter = authmilter[reasons="access_reject|spamtrap|dnsb'): Read(
            "tests/contrib/test_fail2ban.py::test_the_reasons_of_the_page_are_taken"
        ),
    },
    "contrib/gateway/README.md": {
        (
            "A gateway: authmilter in front of Exim, Exchange or any mail server",
            "world -> Postfix + authmilter (MX, 192.0.2.10) -> server",
        ): NotRun(
            "world -> Postfix + authmilter (MX, 192.0.2.10) -> server behind (192.0.2.25) -> mailboxes\n"
            "world <- Postfix + authmilter (signs)          <- server behind",
            "a picture",
        ),
        ("Exim", "GW_ADDRESS = 192.0.2.10"): EXIM,
        ("Exim", "directory = /var/mail/${if eq{$h_X-Spam-Flag:}{YES}{junk"): EXIM,
        ("Exim without a gateway", "AUTHMILTER = /usr/bin/authmilter -c /etc/exim4/authmilte"): Same(
            "AUTHMILTER = /usr/bin/authmilter -c /etc/exim4/authmilter.ini\nacl_smtp_data = authmilter_check_data",
            "tests/rig/test_exim.py::test_a_message_is_kept_with_our_results_on_top_and_its_own_signature",
        ),
    },
    "contrib/nagios/README.md": dict.fromkeys(
        [
            ("Nagios, Icinga and others", "check_authmilter --socket inet:8891@127.0.0.1 --url http"),
            ("Nagios, Icinga and others", "check_authmilter --url http://127.0.0.1:9797 --state /va"),
            ("Nagios, Icinga and others", "check_authmilter --socket unix:/var/spool/postfix/authmi"),
            ("DNS and keys", "check_authmilter --url http://127.0.0.1:9797 --metric 'a"),
        ],
        Read("tests/contrib/test_nagios.py::test_the_commands_of_the_page"),
    ),
    "contrib/postfix/README.md": {
        ("The lines that everybody needs", "# /etc/postfix/main.cf"): ONE_PATH,
        ("The lines that everybody needs", "; /etc/authmilter/authmilter.ini"): ONE_PATH,
        (
            "The path of the socket, and the chroot",
            "# install -d -o authmilter -g postfix -m 2710 /var/spool",
        ): ONE_PATH,
        ("Your users: submission", "# /etc/postfix/master.cf"): Read(
            f"{POSTFIX}::test_a_user_who_logged_in_is_signed_for_and_not_verified"
        ),
        ("Several milters", "# /etc/postfix/main.cf"): MILTERS,
        ("Several milters", "# /etc/postfix/master.cf, below submission"): MILTERS,
        ("Content filters: amavis and others after the queue", "# /etc/postfix/main.cf"): FILTER,
        ("Content filters: amavis and others after the queue", "# /etc/postfix/master.cf"): FILTER,
        ("Clients that are not examined", "# /etc/postfix/main.cf"): MAP,
        ("Clients that are not examined", "# /etc/postfix/milter_map"): MAP,
    },
    "contrib/prometheus/README.md": {
        ("Prometheus", "promtool check rules authmilter.rules.yml"): Read(
            "tests/contrib/test_prometheus.py::test_the_page_names_every_alert_and_its_commands_work"
        )
    },
    "contrib/relays/README.md": {
        ("Who signs", "; /etc/authmilter/authmilter.ini"): BOTH,
        ("Lines for all of them", "# /etc/postfix/main.cf"): BOTH,
        ("Lines for all of them", "# chmod 600 /etc/postfix/relay_password"): BOTH,
        **{
            (provider, line): BOTH
            for provider in ("SendGrid", "Mailgun", "Amazon SES", "SMTP2GO")
            for line in ("# /etc/postfix/main.cf", "# /etc/postfix/relay_password", "; /etc/bind/example.org.zone")
        },
        ("Only mail of your own domain", "# /etc/postfix/main.cf"): Read(
            f"{RELAYS}::test_mail_of_other_domains_goes_directly"
        ),
    },
    "contrib/sendmail/README.md": {
        ("authmilter on Sendmail", SENDMAIL_LINE[:56]): LINE,
        ("Mail that is held", "mailq -qQ                       # what is held, and why"): Same(
            "mailq -qQ                       # what is held, and why\n"
            "sendmail -qQ -qIQUEUEID -Q      # let one message go,\n"
            "sendmail -qIQUEUEID             # and deliver it now",
            "tests/rig/test_sendmail.py::test_what_is_to_be_held_stays_in_the_queue_until_it_is_let_go",
        ),
    },
    "contrib/zabbix/README.md": {
        ("Zabbix", "zabbix_agentd -c /etc/zabbix/zabbix_agentd.conf -t authm"): Read(
            "tests/contrib/test_zabbix.py::test_the_commands_of_the_page_name_the_keys_of_agent_and_template"
        )
    },
    "packaging/debian/README.Debian": {
        ("", "smtpd_milters = unix:authmilter/authmilter.sock"): Read(
            "tests/packaging/test_deb.py::test_inbound_mail_gets_its_results"
        ),
        ("", SENDMAIL_LINE[:56]): LINE,
    },
}

# Within the text of any page.
COMMANDS: dict[str, str | NotRun] = {
    ".venv/bin/python -m tests.bench.run": NotRun("", "it takes an hour; its parts are tested in tests/bench"),
    ".venv/bin/python -m tests.suites": "tests/suites/test_suites.py::test_the_command",
    "python -m tests.bench.content": "tests/bench/test_content.py::test_stored_mail_as_a_workload",
    "python -m tests.bench.run": NotRun("", "it takes an hour; its parts are tested in tests/bench"),
    "apt-get install": NotRun("", "named on the page as not run"),
    "apt-get update": NotRun("", "named on the page as not run"),
    "apt purge": "tests/packaging/test_deb.py::test_a_purge_leaves_nothing",
    "apt remove": "tests/packaging/test_deb.py::test_removal_keeps_what_is_the_administrators",
    "authmilter backup /root/authmilter.backup": SECURE,
    "authmilter backup FILE": "tests/cli/test_backup.py::test_all_comes_back_after_a_wipe",
    "authmilter check-config": f"{MIGRATION}::test_every_block_of_the_page_is_used",
    "authmilter check-message": "tests/cli/test_check_message.py::test_good_mail",
    "authmilter check-message --ip 192.0.2.7 --helo mail.example.org --mail-from a@example.org --rcpt b@example.net FILE": (
        f"{START}::test_a_message_of_ours_arrives_signed_by_the_key_that_is_published"
    ),
    "authmilter evaluate HAM SPAM": f"{README}::test_the_classifier_learns_and_is_judged_by_the_commands",
    "authmilter learn --later ham -": "tests/cli/test_learn.py::test_learned_later",
    "authmilter learn --later spam -": "tests/cli/test_learn.py::test_learned_later",
    r"authmilter learn ham\|spam PATH ...": f"{README}::test_the_classifier_learns_and_is_judged_by_the_commands",
    "authmilter logs [FILE ...]": "tests/cli/test_logs.py::test_plain_and_packed_files_and_standard_input_are_added_up",
    "authmilter manual": "tests/cli/test_config_commands.py::test_manual_prints_the_page_and_the_sample",
    "authmilter restore FILE": "tests/cli/test_backup.py::test_all_comes_back_after_a_wipe",
    "authmilter run": "tests/rig/test_daemon.py::test_an_empty_file_is_enough",
    "authmilter show-config": "tests/cli/test_config_commands.py::test_show_config_names_the_origin_of_each_value",
    "authmilter show-config | grep '^enforce'": SECURE,
    "authmilter show-config | grep '^internal'": SECURE,
    "authmilter state release LOGIN": "tests/cli/test_state.py::test_release_of_several_tells_of_each",
    r"authmilter state list\|release\|forget\|export": "tests/cli/test_state.py::test_export",
    "authmilter status": SECURE,
    "exim -bV": NotRun(
        "", "looks at a program; the Exim that tests start would not read the ACL without content scanning"
    ),
    "find /etc/authmilter/keys -type f ! -perm 600": SECURE,
    "forget --subject": "tests/cli/test_state.py::test_forget_by_subject",
    "hostname --fqdn": NotRun("", "looks at the machine; that of the test has such a name"),
    "journalctl -u authmilter --grep am-20d2c19bee": f"{MIGRATION}::test_the_log_has_what_would_have_been_refused",
    "journalctl -u authmilter -o cat": f"{START}::test_at_first_it_is_accepted_and_noted",
    "kill -HUP": "tests/rig/test_daemon.py::test_systemd_is_told_of_start_reload_failure_and_stop",
    "mailq -qQ": "tests/rig/test_sendmail.py::test_what_is_to_be_held_stays_in_the_queue_until_it_is_let_go",
    "man packaging/authmilter.conf.5": NotRun(
        "", "man is not there; mandoc judges the page in tests/cli/test_pages.py"
    ),
    "openssl rsa -in /etc/authmilter/keys/example.org.s2026.pem -noout -text | head -1": SECURE,
    "packaging/build deb|rpm|wheel FOLDER": f"{START}::test_the_packages_named_are_those_that_the_build_needs",
    "pip install 'authmilter[plots]'": NotRun(
        "", "authmilter is not on the index; tests/run installs what [plots] names"
    ),
    "postfix reload": f"{MIGRATION}::test_every_block_of_the_page_is_used",
    "postqueue -p": NotRun("", "looks at the queue of Postfix, which `postqueue -j` does in tests/rig"),
    "postsuper -H ALL": f"{POSTFIX}::test_default_action_is_what_the_table_says",
    "release 192.0.2.7": "tests/cli/test_state.py::test_release_lifts_what_holds_up_and_leaves_what_speaks_for_it",
    "sendmail -bs": "tests/rig/test_sendmail.py::test_local_submission_is_signed_and_never_refused",
    "systemctl edit authmilter": NotRun("", "it opens an editor"),
    "systemctl restart fail2ban": BANNED.test,
    "systemctl restart authmilter": (
        "tests/packaging/test_deb.py::test_mistakes_in_the_configuration_are_told_and_not_tried_again"
    ),
    "systemctl show -p User authmilter": SECURE,
    "systemctl status authmilter": f"{MIGRATION}::test_step_1_changes_nothing_for_mail",
}
# No commands: what is logged, and words of others.
PROSE = {
    "check_policy_service unix:private/policyd-spf",
    "connect to Milter service unix:/run/authmilter/authmilter.sock: No such file or directory",
    "local socket name ... unsafe: World writable directory",
    "not enforced",
    "unrecognized default action: shutdown",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_is_here(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    found = found_in(page.read_text(encoding="utf-8"))
    proofs = BLOCKS.get(name, {})
    assert [(block.heading, block.first) for block in found] == list(dict.fromkeys((b.heading, b.first) for b in found))
    assert {(block.heading, block.first) for block in found} == set(proofs)
    for block in found:
        proof = proofs[block.heading, block.first]
        assert isinstance(proof, Read) or proof.text == block.text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_within_a_text_is_here(page: Path) -> None:
    assert commands_in(page.read_text(encoding="utf-8")) <= set(COMMANDS) | PROSE


def test_nothing_is_here_that_no_page_shows() -> None:
    shown = set().union(*(commands_in(page.read_text(encoding="utf-8")) for page in PAGES))
    assert set(COMMANDS) | PROSE == shown
    assert set(BLOCKS) <= {str(page.relative_to(ROOT)) for page in PAGES}


def test_the_tests_that_are_named_are_there_and_read_the_page() -> None:
    named = {proof for proof in COMMANDS.values() if isinstance(proof, str)}
    for page, proofs in BLOCKS.items():
        for proof in proofs.values():
            if not isinstance(proof, NotRun):
                named.add(proof.test)
            if isinstance(proof, Read):
                source = (ROOT / proof.test.partition("::")[0]).read_text(encoding="utf-8")
                assert Path(page).name in source, proof
    for test in named:
        file, _, name = test.partition("::")
        assert name in functions_of(file), test


def test_blocks_and_commands_are_found() -> None:
    page = "# A\n\ntext `apt install x`\n\n    one\n    two\n\n    # /etc/x\n    three\n\n* item `a = b`\n    goes on\n\n```sh\nfour\n```\n"
    assert [(block.heading, block.text) for block in found_in(page)] == [
        ("A", "one\ntwo"), ("A", "# /etc/x\nthree"), ("A", "four")
    ]  # fmt: skip
    assert commands_in(page) == {"apt install x"}
