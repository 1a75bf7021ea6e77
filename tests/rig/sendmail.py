"""A private Sendmail beside whatever MTA the machine has: unpacked, not installed, in namespaces of its own."""

import os
import re
import shutil
import smtplib
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pytest

from tests.rig.postfix import Answer, Client
from tests.rig.sockets import accepting, free_port, wait_until
from tests.shared import ROOT

# Where packaging/setup unpacks Debian's packages.
PROGRAMS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "authmilter" / "mta"
SENDMAIL = PROGRAMS / "usr/libexec/sendmail/sendmail"
MACROS = PROGRAMS / "usr/share/sendmail/cf"
LINES = ROOT / "contrib/sendmail/authmilter.mc"
SOCKET = Path("/run/authmilter/authmilter.sock")  # as those lines name it

# What is ours alone of a machine: the host name, which Sendmail wants dotted, and the files by which its libraries find
# the names of clients and the server that checks logins.  $1 is the folder of this Sendmail, $2 that of the daemon.
NAMESPACES = """
hostname mx.test
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
mount --bind "$1/sasl" /usr/lib/sasl2
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/authmilter
mount --bind "$2" /run/authmilter
shift 2
exec "$@"
"""
ENTER = ("unshare", "--uts", "--mount", "sh", "-e", "-c", NAMESPACES, "namespaces")


def require_sendmail() -> None:
    """Skip the calling test where Sendmail can't be run; fail it where AUTHMILTER_REQUIRE_RIG says that it must be."""
    if os.geteuid() == 0 and subprocess.run(["unshare", "--uts", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no namespaces here, and Sendmail does not start where the host name has no dot")
    reason = ""
    if os.geteuid() != 0:
        reason = "Sendmail starts as root only"
    elif not SENDMAIL.exists():
        reason = f"Sendmail is not in {PROGRAMS} (tests/run puts it there)"
    if not reason:
        return
    if os.environ.get("AUTHMILTER_REQUIRE_RIG") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def quoted(text: str) -> str:
    """A text between the quotes of m4."""
    return f"`{text}'"


class Logins:
    """A server that checks logins as saslauthd does: every password is right but ``wrong``."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(20)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream, suppress(OSError, struct.error):
                # Each text behind its length in two octets: login, password, service, realm.
                texts = [stream.read(*struct.unpack(">H", stream.read(2))) for _ in range(4)]
                said = b"NO" if texts[1] == b"wrong" else b"OK"
                connection.sendall(struct.pack(">H", len(said)) + said)


class Queued(NamedTuple):
    """A message in the queue; `quarantined` is the reason why it is held, "" if it is not."""

    queue_id: str
    quarantined: str
    text: str  # of its qf or hf file


class Sendmail:
    """A running Sendmail that delivers everything to `sink_port`.

    `filters` are lines of a .mc file, for instance those of contrib/sendmail; `milter_folder` becomes /run/authmilter.
    `settings` are further lines.  Use it as a context manager; `port` is where it listens, on 127.0.0.1 and ::1, and
    `submission_port` where one has to log in.  `hosts` are names of clients by address.
    """

    def __init__(
        self,
        filters: str,
        milter_folder: Path,
        sink_port: int,
        settings: str = "",
        hosts: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.submission_port = free_port()
        self.folder = Path()  # while it runs
        self._filters = filters
        self._milter_folder = milter_folder
        self._sink_port = sink_port
        self._settings = settings
        self._hosts = dict(hosts or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._logins = ExitStack()

    def __enter__(self) -> Self:
        require_sendmail()
        self.folder = Path(tempfile.mkdtemp(prefix="authmilter-sendmail-"))
        try:
            self.folder.chmod(0o755)
            (self.folder / "mqueue").mkdir(0o700)
            self._logins.enter_context(Logins(self.folder / "logins"))
            self._write_files()
            self._process = subprocess.Popen(
                [*self._enter(), SENDMAIL, "-bD", "-C", self.folder / "sendmail.cf", "-q1s", "-X", self.folder / "log"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(self.folder / "errors").open("wb"),
            )  # fmt: skip
            wait_until(lambda: self._ended() or accepting(self.port), 10, "Sendmail listens")
            assert not self._ended(), f"it ended at once: {(self.folder / 'errors').read_text()}"
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"log of Sendmail:\n{self.log()}")
        self._end()

    @contextmanager
    def smtp(
        self, addr: str = "127.0.0.1", helo: str = "client.test", login: str = "", timeout: float = 30.0
    ) -> Iterator[Client]:
        """A greeted session of a client with that address of this machine, logged in if `login` is given."""
        client = Client(
            "::1" if ":" in addr else "127.0.0.1",
            self.submission_port if login else self.port,
            local_hostname=helo,
            timeout=timeout,
            source_address=(addr, 0),
        )
        try:
            client.ehlo_or_helo_if_needed()
            if login:
                client.login(login, "right")
            yield client
        except BaseException:
            client.close()
            raise
        with suppress(smtplib.SMTPServerDisconnected):  # it closes after a 421, which was answer enough
            client.quit()

    def send(
        self,
        message: bytes,
        *,
        mail_from: str,
        rcpts: Sequence[str] = ("user@test",),
        addr: str = "127.0.0.1",
        helo: str = "client.test",
        login: str = "",
    ) -> Answer:
        """One message in a session of its own.  A refused greeting is an Answer too."""
        try:
            with self.smtp(addr, helo, login) as client:
                return client.deliver(message, mail_from, rcpts)
        except smtplib.SMTPConnectError as e:
            text = e.smtp_error.decode() if isinstance(e.smtp_error, bytes) else e.smtp_error
            return Answer(e.smtp_code, text, "connect")

    def submit_locally(self, mail_from: str, rcpt: str, message: bytes) -> list[tuple[int, str]]:
        """Hand in a message by SMTP on standard input (`sendmail -bs`), as programs of the machine do; all replies."""
        program = subprocess.Popen(
            [*self._enter(), SENDMAIL, "-bs", "-C", self.folder / "sendmail.cf"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert program.stdin is not None
        assert program.stdout is not None
        replies = []
        try:
            commands = (f"MAIL FROM:<{mail_from}>", f"RCPT TO:<{rcpt}>", "DATA")
            for said in (b"", b"EHLO localhost", *(line.encode() for line in commands), message + b"."):
                if said:  # it speaks first
                    program.stdin.write(said + b"\r\n")
                    program.stdin.flush()
                line = program.stdout.readline()
                while line[3:4] == b"-":
                    line = program.stdout.readline()
                replies.append((int(line[:3]), line.decode().strip()))
            program.communicate(b"QUIT\r\n", timeout=10)
        finally:
            if program.poll() is None:
                program.kill()
                program.wait(5)
        return replies

    def queue(self) -> list[Queued]:
        """What is in the queue now."""
        found = []
        for file in sorted((self.folder / "mqueue").glob("[qh]f*")):
            with suppress(FileNotFoundError):  # delivered just now
                text = file.read_text("utf-8", "replace")
                reason = re.search(r"(?m)^q(.*)$", text)
                found.append(Queued(file.name[2:], reason[1] if reason else "", text))
        return found

    def mailq(self, *arguments: str) -> str:
        """What `mailq` shows."""
        return subprocess.run(
            [*self._enter(), SENDMAIL, "-C", self.folder / "sendmail.cf", "-bp", *arguments],
            check=True, timeout=30, capture_output=True, text=True,
        ).stdout  # fmt: skip

    def release(self, queue_id: str) -> None:
        """Let a message go that is held, and deliver it."""
        for arguments in (("-qQ", f"-qI{queue_id}", "-Q"), (f"-qI{queue_id}",)):
            subprocess.run(
                [*self._enter(), SENDMAIL, "-C", self.folder / "sendmail.cf", *arguments],
                check=True, timeout=30, capture_output=True,
            )  # fmt: skip

    def log(self) -> str:
        """All SMTP that was spoken."""
        file = self.folder / "log"
        return file.read_text("utf-8", "replace") if file.exists() else ""

    def _enter(self) -> tuple[str | Path, ...]:
        return (*ENTER, self.folder, self._milter_folder)

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _end(self) -> None:
        if self._process is not None and not self._ended():
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
        self._logins.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_files(self) -> None:
        hosts = {"127.0.0.1": "localhost", "::1": "localhost", **self._hosts}
        sasl = self.folder / "sasl"
        sasl.mkdir(0o755)
        files = {
            "hosts": "".join(f"{address} {name}\n" for address, name in hosts.items()),
            "nsswitch.conf": "hosts: files\n",
            "switch": "hosts files\naliases files\n",
            "sasl/Sendmail.conf": f"pwcheck_method: saslauthd\nsaslauthd_path: {self.folder}/logins\n",
            "sendmail.mc": self._mc(),
        }
        for name, text in files.items():
            (self.folder / name).write_text(text)
        done = subprocess.run(
            ["m4", "-D", f"_CF_DIR_={MACROS}/", self.folder / "sendmail.mc"],
            capture_output=True,
            check=True,
            timeout=30,
        )
        (self.folder / "sendmail.cf").write_bytes(done.stdout)

    def _mc(self) -> str:
        defines = {
            "confDOMAIN_NAME": "mx.test",
            "QUEUE_DIR": f"{self.folder}/mqueue",
            "confPID_FILE": f"{self.folder}/pid",
            "ALIAS_FILE": "",
            "STATUS_FILE": "",
            "HELP_FILE": "",
            "confCW_FILE": "-o /dev/null",
            "confSERVICE_SWITCH_FILE": f"{self.folder}/switch",  # no DNS
            "confTO_IDENT": "0",
            "confDONT_PROBE_INTERFACES": "True",
            "confDONT_BLAME_SENDMAIL": "GroupWritableDirPathSafe",
            # A busy machine is no reason to refuse, or only to queue.
            "confREFUSE_LA": "1000",
            "confQUEUE_LA": "1000",
            "confDELAY_LA": "0",
            "confAUTH_MECHANISMS": "PLAIN LOGIN",
            "SMART_HOST": "relay:[127.0.0.1]",
            "RELAY_MAILER_ARGS": f"TCP $h {self._sink_port}",
        }
        daemons = (
            ("Family=inet, Addr=127.0.0.1, Name=MTA", self.port, ""),
            ("Family=inet6, Addr=::1, Name=MTA6", self.port, ""),
            ("Family=inet, Addr=127.0.0.1, Name=MSA", self.submission_port, ", M=Ea"),
        )
        features = (
            "no_default_msa",
            "nocanonify",
            "accept_unresolvable_domains",
            "accept_unqualified_senders",
            "promiscuous_relay",
        )
        lines = [
            f"divert(-1)include({quoted(f'{MACROS}/m4/cf.m4')})divert(0)dnl",
            f"OSTYPE({quoted('linux')})dnl",
            *(f"define({quoted(name)},{quoted(value)})dnl" for name, value in defines.items()),
            f"TRUST_AUTH_MECH({quoted('PLAIN LOGIN')})dnl",
            *(f"FEATURE({quoted(feature)})dnl" for feature in features),
            *(
                f"DAEMON_OPTIONS({quoted(f'{words}, Port={port}, Listen=200{more}')})dnl"
                for words, port, more in daemons
            ),
            self._settings,
            self._filters,
            f"MAILER({quoted('smtp')})dnl",
        ]
        return "\n".join(lines) + "\n"
