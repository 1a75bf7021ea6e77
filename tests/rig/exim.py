"""A private Exim: unpacked, not installed, in a mount namespace where its user exists."""

import mailbox
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.rig.sendmail import PROGRAMS
from tests.rig.sockets import accepting, free_port, wait_until
from tests.shared import ROOT

EXIM = PROGRAMS / "usr/sbin/exim4"
LINES = ROOT / "contrib/gateway"
USER, UID = "Debian-exim", 64999  # the user that Debian's Exim is built for
KNOWN = "user : alice"  # local parts
SECTIONS = ("main", "acl", "routers", "transports")

# What is bound over what, in pairs; behind them the command.  Nothing is to be written there, whoever sees it.
NAMESPACE = """
while [ "$1" != -- ]; do
    mount -o bind,ro "$1" "$2"
    shift 2
done
shift
exec "$@"
"""


def require_exim() -> None:
    """Skip the calling test where Exim can't be run; fail it where AUTHMILTER_REQUIRE_RIG says that it must be."""
    if os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here, and the user of Exim must exist")
    reason = ""
    if os.geteuid() != 0:
        reason = "Exim starts as root only"
    elif not EXIM.exists():
        reason = f"Exim is not in {PROGRAMS} (tests/run puts it there)"
    if not reason:
        return
    if os.environ.get("AUTHMILTER_REQUIRE_RIG") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def lines_of(name: str) -> str:
    """The text of a file of contrib/gateway."""
    return (LINES / name).read_text()


def behind_gateway(domain: str, gateway_port: int) -> "Exim":
    """By the lines for an Exim behind a gateway, to which it sends what is not for `domain`."""
    macros = f"GW_ADDRESS = 127.0.0.1\nGW_PORT = {gateway_port}\n"
    lines = {section: lines_of(f"exim-{section}.conf") for section in SECTIONS}
    return Exim(domain, {**lines, "main": macros + lines["main"]})


class Exim:
    """A running Exim with mailboxes of `domain`, and `lines` (a text for each section) in its configuration.

    Use it as a context manager; `port` is where it listens, and `folder`, in the lines FOLDER, all that it has.
    It asks `nameserver`, an address, on port 53; "" are those of this machine.  Folders of this machine are seen there
    by the names in `mounts`, so that its user can read them wherever they are.  `stop` and `start` work within.
    """

    def __init__(
        self,
        domain: str,
        lines: Mapping[str, str],
        *,
        nameserver: str = "",
        mounts: Mapping[str, Path] | None = None,
    ) -> None:
        self.port = free_port()
        self.folder = Path()  # while it runs
        self._domain = domain
        self._lines = lines
        self._nameserver = nameserver
        self._files = ("passwd", "group", *(("resolv.conf",) if nameserver else ()))  # of /etc, that are its own
        self._mounts = mounts or {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        require_exim()
        self.folder = Path(tempfile.mkdtemp(prefix="authmilter-exim-"))
        try:
            self.folder.chmod(0o755)
            for name in ("spool", "log", "mail"):
                (self.folder / name).mkdir(0o750)
                os.chown(self.folder / name, UID, UID)
            # It starts itself anew as its own user, who must get at it, and becomes root again by its mode.
            shutil.copy(EXIM, self.folder / "exim4")
            (self.folder / "exim4").chmod(0o4755)
            for name, entry in (
                ("passwd", f"{USER}:x:{UID}:{UID}::/nonexistent:/bin/false"),
                ("group", f"{USER}:x:{UID}:"),
            ):
                (self.folder / name).write_text(f"{entry}\n{Path('/etc', name).read_text()}")  # the first one counts
            (self.folder / "resolv.conf").write_text(f"nameserver {self._nameserver}\n")
            for name in self._mounts:
                (self.folder / name).mkdir()
            for section in SECTIONS:
                (self.folder / f"{section}.conf").write_text(self._lines.get(section, ""))
            (self.folder / "exim.conf").write_text(self._configuration())
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"log of Exim:\n{self.log()}")
        self._end()

    def start(self) -> None:
        """Serve."""
        self._process = subprocess.Popen(
            [*self._enter(), "-bdf", "-q1m"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(self.folder / "errors").open("wb"),
        )  # fmt: skip
        process = self._process
        wait_until(lambda: process.poll() is not None or accepting(self.port), 10, "Exim listens")
        assert process.poll() is None, f"it ended at once: {(self.folder / 'errors').read_text()}"

    def stop(self) -> None:
        """End; nobody listens any longer."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)

    def submit(self, message: bytes, mail_from: str, rcpt: str) -> None:
        """Hand in a message of a user of this server, as programs do by the `sendmail` command."""
        subprocess.run(
            [*self._enter(), "-f", mail_from, "-oi", rcpt],
            input=message.replace(b"\r\n", b"\n"), check=True, timeout=30, capture_output=True,
        )  # fmt: skip

    def find(self, marker: str, folder: str = "inbox") -> bytes:
        """The one message in that folder of all users that has `marker`, waiting for it."""
        found: list[bytes] = []

        def arrived() -> bool:
            found[:] = [text for text in self.messages(folder) if marker.encode() in text]
            return bool(found)

        wait_until(arrived, 10, f"a message with {marker} in {folder}")
        assert len(found) == 1, f"{marker} was delivered {len(found)} times"
        return found[0]

    def messages(self, folder: str = "inbox") -> list[bytes]:
        """All messages of a folder, with CRLF at their line ends."""
        path = self.folder / "mail" / folder
        if not (path / "cur").exists():
            return []
        maildir = mailbox.Maildir(path, create=False)
        return [maildir.get_bytes(key).replace(b"\n", b"\r\n") for key in maildir.keys()]  # noqa: SIM118  no mapping

    def queue(self) -> str:
        """What waits, as `mailq` shows it."""
        done = subprocess.run([*self._enter(), "-bp"], check=True, timeout=30, capture_output=True, text=True)
        return done.stdout

    def remove_all(self) -> None:
        """Empty the queue."""
        ids = [file.name.removesuffix("-H") for file in (self.folder / "spool/input").glob("*-H")]
        if ids:
            subprocess.run([*self._enter(), "-Mrm", *ids], check=True, timeout=30, capture_output=True)

    def log(self) -> str:
        """What it logged."""
        return "".join(file.read_text("utf-8", "replace") for file in sorted((self.folder / "log").glob("*log")))

    def _enter(self) -> tuple[str | Path, ...]:
        script = ("unshare", "--mount", "sh", "-e", "-c", NAMESPACE, "namespace")
        pairs = [(self.folder / name, Path("/etc", name)) for name in self._files]
        pairs += [(source, self.folder / name) for name, source in self._mounts.items()]
        mounts = [path for pair in pairs for path in pair]
        return (*script, *mounts, "--", self.folder / "exim4", "-C", self.folder / "exim.conf")

    def _end(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _configuration(self) -> str:
        folder = self.folder
        return f"""
FOLDER = {folder}
exim_path = {folder}/exim4
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/pid
primary_hostname = back.test
domainlist local_domains = {self._domain}
local_interfaces = 127.0.0.1
daemon_smtp_ports = {self.port}
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
.include {folder}/main.conf

begin acl
.include {folder}/acl.conf

begin routers
.include {folder}/routers.conf

known:
  driver = accept
  local_parts = {KNOWN}
  transport = maildir

begin transports
.include {folder}/transports.conf

maildir:
  driver = appendfile
  maildir_format
  create_directory
  directory = {folder}/mail/${{if eq{{$h_X-Spam-Flag:}}{{YES}}{{junk}}{{inbox}}}}
  user = {USER}
"""
