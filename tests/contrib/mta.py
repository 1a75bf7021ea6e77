"""A Postfix with more lines than those of tests/rig, and what it needs beside it: certificates, logins, another milter."""

import base64
import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import dkim
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.rig.mail import zone
from tests.rig.postfix import MASTER_PROTO, Postfix
from tests.rig.sockets import accepting, free_port, wait_until
from tests.shared import ROOT


class PagePostfix(Postfix):
    """A Postfix with `master` lines too, and with `chroot` in the same cage as Debian's.

    `place(queue folder)` runs before it starts: for files that must be there by then; it may change `settings`.
    """

    def __init__(
        self,
        sink_port: int,
        settings: Mapping[str, str],
        master: str = "",
        *,
        chroot: bool = True,
        place: Callable[[Path], None] = lambda _: None,
    ) -> None:
        super().__init__([], sink_port, settings)
        self._master = master
        self._chroot = chroot
        self._place = place

    @property
    def queue_folder(self) -> Path:
        """The queue directory, /var/spool/postfix elsewhere."""
        return self.folder / "q"

    def _make_queue(self) -> None:
        super()._make_queue()
        self._place(self.queue_folder)
        (self.folder / "etc/main.cf").unlink()
        (self.folder / "etc/master.cf").unlink()
        (self.folder / "etc").rmdir()
        self._write_configuration()
        master = self.folder / "etc/master.cf"
        lines = master.read_text().splitlines()
        if self._chroot:
            caged = {
                tuple(columns[:2])
                for columns in map(str.split, MASTER_PROTO.read_text().splitlines())
                if len(columns) > 7 and columns[4] == "y"
            }
            assert ("cleanup", "unix") in caged, "Debian's own"
            for i, line in enumerate(lines):
                columns = line.split()
                if tuple(columns[:2]) in caged or columns[7] == "smtpd":
                    columns[4] = "y"
                    lines[i] = " ".join(columns)
        master.write_text("\n".join(lines) + "\n" + self._master)
        os.utime(master, (master.stat().st_mtime - 10,) * 2)


def valid_signatures(content: bytes, names: Mapping[str, str]) -> list[str]:
    """d= of each DKIM-Signature that dkimpy finds right, top first; `names` are those of keys, all of the rig's RSA key."""
    record = zone()["r._domainkey.sender.example TXT"][0]
    assert isinstance(record, str)

    def txt(name: bytes, timeout: float = 5) -> bytes:
        return record.encode() if name.decode().rstrip(".") in names else b""

    found = []
    section = b"\r\n" + content.partition(b"\r\n\r\n")[0].lower()
    for i in range(section.count(b"\r\ndkim-signature:")):
        verifier = dkim.DKIM(content)
        with suppress(dkim.ValidationError):
            if verifier.verify(idx=i, dnsfunc=txt):
                found.append(verifier.domain.decode())
    return found


def certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """Files of a certificate for `host`, signed by itself, and of its key."""
    key: EllipticCurvePrivateKey = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(host)]
    with suppress(ValueError):
        names = [x509.IPAddress(ipaddress.ip_address(host))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


class DovecotLogins:
    """A server of Dovecot's authentication protocol: alice may log in with the password `secret`."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        shutil.chown(path, "postfix")
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rw", encoding="ascii", newline="\n") as stream, suppress(OSError):
            stream.write(
                f"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t{os.getpid()}\nCUID\t1\nCOOKIE\t{'0' * 32}\nDONE\n"
            )
            stream.flush()
            for line in stream:
                command, *words = line.rstrip("\n").split("\t")
                if command != "AUTH":
                    continue
                response = next(word for word in words if word.startswith("resp="))
                user, password = base64.b64decode(response[5:]).decode().split("\0")[1:]
                right = (user, password) == ("alice", "secret")
                stream.write(f"OK\t{words[0]}\tuser={user}\n" if right else f"FAIL\t{words[0]}\tuser={user}\n")
                stream.flush()


@contextmanager
def other_milter() -> Iterator[int]:
    """The port of a milter that is not authmilter, see tests/contrib/other_milter.py."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.contrib.other_milter", str(port)], cwd=ROOT)
    try:
        wait_until(lambda: accepting(port), 10, "the other milter")
        yield port
    finally:
        process.kill()
        process.wait(5)


def replaced(text: str, changes: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
    """Text with each of `changes`, all of which must be there."""
    for old, new in dict(changes).items():
        assert old in text, f"{old} is not in the page any more"
        text = text.replace(old, new)
    return text
