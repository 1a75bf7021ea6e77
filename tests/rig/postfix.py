"""A private Postfix: its own configuration, queue, log and port; what is installed on the machine is not touched."""

import json
import os
import pwd
import re
import shutil
import smtplib
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pytest

from tests.rig.sockets import free_port

PROGRAMS = Path("/usr/sbin")
DAEMONS = Path("/usr/lib/postfix/sbin")
MASTER_PROTO = Path("/etc/postfix/master.cf.proto")
# Mode and owners of the queue folders, as post-install makes them.
QUEUE = {
    "active bounce corrupt defer deferred flush hold incoming private saved trace": (0o700, "postfix", "root"),
    "maildrop": (0o1730, "postfix", "postdrop"),
    "public": (0o2710, "postfix", "postdrop"),
    "pid": (0o755, "root", "root"),
}


def require_rig() -> None:
    """Skip the calling test where Postfix can't be run; fail it where AUTHMILTER_REQUIRE_RIG says that it must be."""
    reason = ""
    if os.geteuid() != 0:
        reason = "Postfix starts as root only"
    elif not (PROGRAMS / "postfix").exists() or not MASTER_PROTO.exists():
        reason = "Postfix is not installed (tests/run installs it)"
    if not reason:
        return
    if os.environ.get("AUTHMILTER_REQUIRE_RIG") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Answer(NamedTuple):
    """How the last command of an SMTP dialogue was answered."""

    code: int
    text: str
    stage: str  # connect xclient helo mail rcpt data eom: where it ended

    @property
    def accepted(self) -> bool:
        """The whole message was taken."""
        return self.stage == "eom" and self.code == 250


class Client(smtplib.SMTP):
    """An SMTP client that can pretend to be another one (XCLIENT, see XCLIENT_README of Postfix)."""

    def xclient(
        self, *, addr: str = "", name: str = "", reverse_name: str = "", helo: str = "", login: str = ""
    ) -> None:
        """Change what Postfix believes of this client; a greeting has to follow.

        `addr` is an IP address; an empty `name` means that its reverse DNS was not confirmed.
        """
        self.ehlo_or_helo_if_needed()
        attributes = {"LOGIN": login, "HELO": helo}
        if addr:
            attributes["ADDR"] = f"IPV6:{addr}" if ":" in addr else addr
            attributes["NAME"] = name or "[UNAVAILABLE]"
            attributes["REVERSE_NAME"] = reverse_name or name or "[UNAVAILABLE]"
        code, text = self.docmd("XCLIENT", " ".join(f"{k}={v}" for k, v in attributes.items() if v))
        if code != 220:
            raise smtplib.SMTPResponseException(code, text)
        self.helo_resp = self.ehlo_resp = None  # smtplib must greet again

    def deliver(self, message: bytes, mail_from: str, rcpts: Sequence[str] = ("user@test",)) -> Answer:
        """One transaction up to its end or the first refusal; the session stays usable."""

        def answer(stage: str, reply: tuple[int, bytes]) -> Answer:
            return Answer(reply[0], reply[1].decode("utf-8", "replace"), stage)

        if (refused := answer("mail", self.docmd("MAIL", f"FROM:<{mail_from}>"))).code >= 400:
            return refused
        for rcpt in rcpts:
            if (refused := answer("rcpt", self.docmd("RCPT", f"TO:<{rcpt}>"))).code >= 400:
                self.docmd("RSET")
                return refused
        if (refused := answer("data", self.docmd("DATA"))).code != 354:
            return refused
        return answer("eom", self.finish(message))

    def finish(self, message: bytes) -> tuple[int, bytes]:
        """The message after DATA was answered by 354: dot-stuffed, with its final dot."""
        self.sock.sendall(re.sub(rb"(?m)^\.", b"..", message) + b".\r\n")  # type: ignore[union-attr]
        return self.getreply()


class Postfix:
    """A running Postfix behind `milters` (as in main.cf), that delivers everything to `sink_port`.

    `settings` go to the end of main.cf, as they are when it starts.  Use it as a context manager; `port` is where smtpd listens.
    """

    def __init__(self, milters: Sequence[str], sink_port: int, settings: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.folder = Path()  # while it runs
        self._milters = " ".join(milters)
        self._sink_port = sink_port
        self.settings = dict(settings or {})

    def __enter__(self) -> Self:
        require_rig()
        # The user postfix must be able to pass through; pytest's own folders are 0700 from the top.
        self.folder = Path(tempfile.mkdtemp(prefix="authmilter-postfix-"))
        try:
            self.folder.chmod(0o755)
            self._write_configuration()
            self._make_queue()
            self._run("postfix", "start")
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._run("postfix", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def smtp(
        self, addr: str = "", name: str = "", helo: str = "client.test", login: str = "", timeout: float = 30.0
    ) -> Iterator[Client]:
        """A greeted session, as another client if `addr` or `login` is given."""
        client = Client("127.0.0.1", self.port, local_hostname=helo, timeout=timeout)
        try:
            if addr or login:
                client.xclient(addr=addr, name=name, login=login)
            client.ehlo_or_helo_if_needed()
            yield client
        except BaseException:
            client.close()  # perhaps within a message, where QUIT would be text
            raise
        try:
            client.quit()
        except smtplib.SMTPServerDisconnected:
            pass  # Postfix closed after a 421, which was answer enough

    def send(
        self,
        message: bytes,
        *,
        mail_from: str,
        rcpts: Sequence[str] = ("user@test",),
        addr: str = "",
        name: str = "",
        helo: str = "client.test",
        login: str = "",
    ) -> Answer:
        """One message in a session of its own.  A refused greeting is an Answer too."""
        try:
            with self.smtp(addr, name, helo, login) as client:
                return client.deliver(message, mail_from, rcpts)
        except smtplib.SMTPConnectError as e:
            return Answer(e.smtp_code, str(e.smtp_error), "connect")
        except smtplib.SMTPHeloError as e:
            return Answer(e.smtp_code, str(e.smtp_error), "helo")
        except smtplib.SMTPResponseException as e:
            text = e.smtp_error.decode("utf-8", "replace") if isinstance(e.smtp_error, bytes) else e.smtp_error
            return Answer(e.smtp_code, text, "xclient")

    def submit_locally(self, message: bytes, mail_from: str, rcpt: str) -> None:
        """Hand in a message by the `sendmail` command: it passes through non_smtpd_milters."""
        subprocess.run(
            [PROGRAMS / "sendmail", "-C", self.folder / "etc", "-f", mail_from, rcpt],
            input=message.replace(b"\r\n", b"\n"), check=True, timeout=30, capture_output=True,
        )  # fmt: skip

    def queue(self) -> list[dict[str, object]]:
        """What is in the queue now (postqueue -j)."""
        return [json.loads(line) for line in self._run("postqueue", "-j").splitlines()]

    def flush(self) -> None:
        """Try to deliver what is deferred."""
        self._run("postqueue", "-f")

    def log(self) -> str:
        """Everything that Postfix logged; postlogd may be a fraction of a second behind."""
        maillog = self.folder / "maillog"
        return maillog.read_text("utf-8", "replace") if maillog.exists() else ""

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [PROGRAMS / program, "-c", self.folder / "etc", *arguments], capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} {arguments}: {done.stderr}{self.log()}")
        return done.stdout

    def _write_configuration(self) -> None:
        etc = self.folder / "etc"
        etc.mkdir()
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": f"{self.folder}/q",
            "data_directory": f"{self.folder}/d",
            "command_directory": str(PROGRAMS),
            "daemon_directory": str(DAEMONS),
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": "mx.test",
            "mydomain": "test",
            "myorigin": "test",
            "mydestination": "",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "relay_domains": "test, example",  # with their subdomains: all that the tests write to
            "relay_recipient_maps": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1, [::1]",
            "inet_protocols": "all",
            "smtp_address_preference": "ipv4",
            "default_transport": f"smtp:[127.0.0.1]:{self._sink_port}",
            "relay_transport": f"smtp:[127.0.0.1]:{self._sink_port}",
            "smtp_host_lookup": "native",  # deliveries ask no DNS
            "smtpd_peername_lookup": "no",  # nor does the arrival of a client: XCLIENT says who it is
            "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
            "maillog_file": f"{self.folder}/maillog",
            "maillog_file_prefixes": str(self.folder),
            # Nothing but the milter may change a message.
            "local_header_rewrite_clients": "",
            "smtp_line_length_limit": "0",
            "disable_mime_output_conversion": "yes",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_error_sleep_time": "0",
            "in_flow_delay": "0",
            "smtpd_milters": self._milters,
            "non_smtpd_milters": "$smtpd_milters",
            "milter_default_action": "tempfail",
            "milter_connect_timeout": "3s",
            "milter_command_timeout": "5s",
            "milter_content_timeout": "10s",
        } | self.settings
        main = etc / "main.cf"
        main.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
        services = []
        for line in MASTER_PROTO.read_text().splitlines():
            columns = line.split()
            if line[:1].isspace() or line.startswith("#") or len(columns) < 8:
                continue
            if columns[:2] == ["smtp", "inet"]:
                columns[0] = f"127.0.0.1:{self.port}"
            if columns[0] == "pickup":
                columns[5] = "1"  # look for local submissions every second
            columns[4] = "n"  # no chroot
            services.append(" ".join(columns))
        master = etc / "master.cf"
        master.write_text("\n".join(services) + "\n")
        # Postfix reads a file again and again until it is two seconds old.
        for path in (main, master):
            os.utime(path, (path.stat().st_mtime - 10,) * 2)

    def _make_queue(self) -> None:
        postfix = pwd.getpwnam("postfix").pw_uid
        data = self.folder / "d"
        data.mkdir(mode=0o700)
        os.chown(data, postfix, -1)
        queue = self.folder / "q"
        queue.mkdir()
        for names, (mode, user, group) in QUEUE.items():
            for name in names.split():
                folder = queue / name
                folder.mkdir()
                shutil.chown(folder, user, group)
                folder.chmod(mode)
        (queue / "quick-start").touch()  # the checks of the start script take two seconds, and are not our subject
