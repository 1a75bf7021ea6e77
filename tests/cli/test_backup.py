"""`authmilter backup` and `restore`: what comes back, what is refused, and a daemon that runs meanwhile."""

import gzip
import io
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authmilter.classifier.learned import Learned
from authmilter.classifier.spool import Lesson, append
from authmilter.cli import restore as restoring
from authmilter.cli.__main__ import main
from tests.classifier.mail import raw
from tests.dnsserver import DNSServer
from tests.rig.daemon import Daemon
from tests.rig.sockets import wait_until
from tests.rig.visits import Visit, deliver, load
from tests.shared import ROOT
from tests.store.servers import is_root

NOBODY = 65534
needs_root = pytest.mark.skipif(not is_root(), reason="only root can be somebody else")
DATABASES = ("state.db", "classifier.table.learned")
KEY = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def secret(path: Path, octets: bytes) -> Path:
    path.write_bytes(octets)
    path.chmod(0o600)
    return path


class Site:
    """A configuration with a key, a map, a password, state, and what a classifier learned."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.etc, self.state = folder / "etc", folder / "state"
        self.backup = folder / "backup.tar.gz"
        (self.etc / "keys").mkdir(parents=True, mode=0o700)
        self.state.mkdir(mode=0o750)
        self.key = secret(self.etc / "keys/k.pem", KEY)
        self.password = secret(self.etc / "password", b"sesame\n")
        self.map = self.etc / "map"
        self.map.write_text("alice: alice@example.org\n")
        self.ini = self.etc / "authmilter.ini"
        self.configure()
        self.database = self.state / "state.db"
        with closing(sqlite3.connect(self.database)) as base:
            base.execute("PRAGMA journal_mode = WAL")
            base.execute(f"PRAGMA application_id = {0x41754D69}")
            base.execute("CREATE TABLE t (n)")
            base.execute("INSERT INTO t VALUES (1)")
            base.commit()
        self.database.chmod(0o600)
        self.table = self.state / "classifier.table"
        learned = Learned(self.state / "classifier.table.learned")
        learned.add([Lesson(b"a" * 16, True, (1, 2, 3))])
        learned.close()
        append(self.state / "classifier.table.spool", Lesson(b"b" * 16, False, (4,), b"o" * 8))

    def configure(self, more: str = "") -> None:
        self.ini.write_text(
            f"[sign example.org]\nselector = s1\nkey_file = {self.key}\n"
            f"[submission]\nfrom_must_match = login\nmap_file = {self.map}\n"
            f"[store]\nurl = sqlite:{self.folder}/state/state.db\npassword_file = {self.password}\n"
            f"[classifier]\ntable = {self.folder}/state/classifier.table\n{more}"
        )

    def run(self, verb: str, *words: object) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = main(["-c", str(self.ini), verb, *map(str, words)])
        return status, *self._capsys.readouterr()

    def saved(self) -> bytes:
        assert self.run("backup", "--quiet", self.backup) == (0, "", "")
        return self.backup.read_bytes()

    def wipe(self) -> None:
        shutil.rmtree(self.etc)
        shutil.rmtree(self.state)

    def tree(self) -> dict[str, tuple[object, ...]]:
        """Every file and folder but the backup: mode, owner, and content (of a database, that of its table)."""
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted([*self.etc.rglob("*"), *self.state.rglob("*"), self.etc, self.state]):
            status = path.lstat()
            content: object = None
            if path.is_file():
                content = dump(path) if path.name in DATABASES else path.read_bytes()
            if not path.name.endswith(("-wal", "-shm")):
                found[str(path)] = (oct(status.st_mode), status.st_uid, status.st_gid, content)
        return found


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as base:
        return list(base.iterdump())


def rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as base:
        return [number for (number,) in base.execute("SELECT n FROM t ORDER BY n")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not in pytest's, which others can't enter."""
    found = Path(tempfile.mkdtemp(prefix="authmilter-backup-"))
    found.chmod(0o755)
    try:
        yield found
    finally:
        shutil.rmtree(found)


@pytest.fixture
def site(folder: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(folder, capsys)


# -- there and back -----------------------------------------------------------------------------------------------------


def test_all_comes_back_after_a_wipe(site: Site) -> None:
    before = site.tree()
    site.saved()
    site.wipe()
    status, out, err = site.run("restore", site.backup)
    assert (status, err) == (0, "")
    assert out.count("new  ") == 7
    assert site.tree() == before
    assert out.endswith("a daemon that runs has to be told: systemctl restart authmilter\n")


def test_a_backup_is_for_its_owner_alone_and_leaves_nothing_beside(site: Site) -> None:
    old = os.umask(0)
    try:
        site.saved()
    finally:
        os.umask(old)
    assert stat.S_IMODE(site.backup.stat().st_mode) == 0o600
    assert sorted(path.name for path in site.folder.iterdir()) == ["backup.tar.gz", "etc", "state"]


def test_any_tar_program_can_take_the_files_out(site: Site) -> None:
    site.saved()
    with tarfile.open(site.backup) as tar:
        assert [name.partition("/")[2] or name for name in tar.getnames()] == [
            "manifest.json", "authmilter.ini", "k.pem", "map", "password", "classifier.table.spool",
            "classifier.table.learned", "state.db",
        ]  # fmt: skip
        key = tar.extractfile("002/k.pem")
        assert key is not None
        assert key.read() == KEY


def test_standard_output_and_standard_input(site: Site) -> None:
    before = site.tree()
    command = [sys.executable, "-m", "authmilter.cli", "-c", str(site.ini)]
    done = subprocess.run([*command, "backup", "-"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0
    site.wipe()
    again = subprocess.run([*command, "restore", "-"], cwd=ROOT, input=done.stdout, capture_output=True)
    assert (again.returncode, again.stderr) == (0, b"")
    assert site.tree() == before


def test_what_is_the_same_is_left_alone(site: Site) -> None:
    site.saved()
    site.wipe()
    assert site.run("restore", site.backup)[0] == 0
    inodes = [path.stat().st_ino for path in (site.key, site.database, site.ini)]
    status, out, _ = site.run("restore", site.backup)
    assert status == 0
    assert out.count("same  ") == 7
    assert out.endswith("all of it was there already\n")
    assert [path.stat().st_ino for path in (site.key, site.database, site.ini)] == inodes


def test_what_was_there_is_kept_beside_and_only_with_force(site: Site) -> None:
    site.saved()
    site.key.write_bytes(b"another\n")
    before = site.tree()
    status, _, err = site.run("restore", site.backup)
    assert status == restoring.EX_CANTCREAT == 73
    assert "--force" in err
    assert site.tree() == before
    status, out, _ = site.run("restore", "--force", site.backup)
    assert status == 0
    assert site.key.read_bytes() == KEY
    [kept] = site.key.parent.glob("k.pem.before-restore-*")
    assert kept.read_bytes() == b"another\n"
    assert f"kept: {kept}\n" in out


def test_a_write_ahead_log_goes_with_the_file_that_it_belongs_to(site: Site) -> None:
    site.saved()
    with closing(sqlite3.connect(site.database)) as writer:
        writer.execute("INSERT INTO t VALUES (2)")
        writer.commit()
        assert Path(f"{site.database}-wal").stat().st_size > 0
        assert site.run("restore", "--force", site.backup)[0] == 0
        assert rows(site.database) == [1]
        [kept] = [
            path for path in site.state.glob("state.db.before-restore-*") if not path.name.endswith(("wal", "shm"))
        ]
        assert rows(kept) == [1, 2]


def test_one_file_under_several_names(site: Site) -> None:
    """As written twice, and by a link of root's; a link does not come back, but a file of its name."""
    link = site.etc / "link.pem"
    link.symlink_to("keys/k.pem")
    site.configure(
        f"[sign example.net]\nselector = s2\nkey_file = {site.etc}//keys/k.pem\n[sign example.com]\nselector = s3\nkey_file = {link}\n"
    )
    site.saved()
    site.key.write_bytes(b"another\n")
    assert site.run("restore", "--force", site.backup)[0] == 0
    assert link.is_symlink()
    assert link.read_bytes() == site.key.read_bytes() == KEY
    assert len(list(site.key.parent.glob("k.pem.before-restore-*"))) == 1
    site.wipe()
    assert site.run("restore", site.backup)[0] == 0
    assert link.read_bytes() == site.key.read_bytes() == KEY


def test_a_dry_run_changes_nothing_and_has_the_same_exit_status(site: Site) -> None:
    site.saved()
    site.map.write_text("bob: bob@example.org\n")
    before = site.tree()
    assert site.run("restore", "--dry-run", site.backup)[0] == 73
    status, out, _ = site.run("restore", "--dry-run", "--force", site.backup)
    assert status == 0
    assert f"replaced  file           {site.map}\n" in out
    assert out.endswith("nothing was changed\n")
    assert site.tree() == before


def test_list_shows_what_is_in_it(site: Site) -> None:
    site.saved()
    site.wipe()
    status, out, err = site.run("restore", "--list", site.backup)
    assert (status, err) == (0, "")
    assert str(site.key) in out
    assert "0600" in out
    assert not site.etc.exists()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://127.0.0.1:6379/0", "not in it: the state: it is not in a file, [store] url is redis:127.0.0.1:6379"),
        ("memory:", "not in it: the state: it is not in a file, [store] url is memory:"),
        ("sqlite:/nonexistent/state.db", "not in it: the state: nothing is kept yet"),
    ],
)
def test_state_that_is_not_in_it_is_told_when_it_is_made_and_when_it_is_restored(
    site: Site, url: str, told: str
) -> None:
    site.ini.write_text(f"[store]\nurl = {url}\n[classifier]\ntable = {site.table}\n")
    status, _, err = site.run("backup", site.backup)
    assert status == 0
    assert told in err
    assert told in site.run("restore", "--list", site.backup)[1]
    assert told in site.run("restore", site.backup)[1]


def test_a_configuration_that_needs_no_restart_is_reloaded(site: Site) -> None:
    site.saved()
    site.configure("[policy]\ntag = 4\n")
    assert "systemctl reload authmilter" in site.run("restore", "--force", site.backup)[1]
    site.configure("[metrics]\nlisten = 127.0.0.1:9798\n")
    assert "systemctl restart authmilter" in site.run("restore", "--force", site.backup)[1]


def test_no_configuration_at_all(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(site.state))
    monkeypatch.setattr("authmilter.config.ini.DEFAULT_PATH", str(site.folder / "none.ini"))
    monkeypatch.setattr("authmilter.config.ini.find", lambda path: path)
    assert main(["backup", str(site.backup)]) == 0
    assert "the built-in defaults hold" in capsys.readouterr().err
    shutil.rmtree(site.state)
    assert main(["restore", str(site.backup)]) == 0
    assert rows(site.database) == [1]


# -- what is refused ----------------------------------------------------------------------------------------------------


def remade(backup: bytes, change: Callable[[dict[str, Any], dict[str, bytes]], object]) -> bytes:
    """A backup after a change to its manifest and its files, with sums that are right again."""
    import hashlib

    with tarfile.open(fileobj=io.BytesIO(backup)) as tar:
        files = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    manifest = json.loads(files.pop("manifest.json"))
    change(manifest, files)
    for entry, octets in zip(manifest["entries"], files.values(), strict=False):
        entry["size"], entry["sha256"] = len(octets), hashlib.sha256(octets).hexdigest()
    return packed({"manifest.json": json.dumps(manifest).encode(), **files})


def packed(files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, octets in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.type = len(octets), kind
            if kind != tarfile.REGTYPE:
                header.size, header.linkname = 0, "/etc/shadow"
            tar.addfile(header, io.BytesIO(octets))
    return target.getvalue()


def entry_of(manifest: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in manifest["entries"] if entry["kind"] == kind)
    return found


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda backup: b"",
    "no gzip file": lambda backup: b"hello" * 1000,
    "a gzip file of something else": lambda backup: gzip.compress(b"hello" * 1000),
    "a backup that is cut off": lambda backup: backup[:-100],
    "a backup with a bit turned": lambda backup: backup[:900] + bytes([backup[900] ^ 1]) + backup[901:],
    "one that goes on after its end": lambda backup: gzip.compress(gzip.decompress(backup) + b"x"),
    "a bomb after its end": lambda backup: gzip.compress(gzip.decompress(backup) + bytes(50_000_000)),
    "a bomb for a manifest": lambda backup: packed({"manifest.json": bytes(20_000_000)}),
    "a manifest nested deeply": lambda backup: packed({"manifest.json": b"[" * 1_000_000}),
    "no manifest": lambda backup: packed({"001/x": b""}),
    "a manifest of another version": lambda backup: remade(backup, lambda m, f: m.update(format=2)),
    "a link in place of the manifest": lambda backup: packed({"manifest.json": b""}, tarfile.SYMTYPE),
    "an absolute name": lambda backup: remade(
        backup, lambda m, f: f.update({"/etc/cron.d/x": f.pop("007/state.db")})
    ),
    "a path out of the folder": lambda backup: remade(backup, lambda m, f: f.update({"../x": f.pop("007/state.db")})),
    "a file that the configuration does not name": lambda backup: remade(
        backup, lambda m, f: entry_of(m, "file").update(path="/etc/cron.d/k.pem")
    ),
    "a file in it twice": lambda backup: remade(
        backup, lambda m, f: (m["entries"].append(m["entries"][0]), f.update({"008/authmilter.ini": f["001/authmilter.ini"]}))
    ),
    "a kind that there is not": lambda backup: remade(backup, lambda m, f: entry_of(m, "file").update(kind="program")),
    "a size below 0": lambda backup: packed(
        {"manifest.json": manifest_with(backup, size=-1)}
    ),
    "a size beyond all": lambda backup: packed({"manifest.json": manifest_with(backup, size=1 << 39)}),
    "an owner that is no number": lambda backup: remade(
        backup, lambda m, f: entry_of(m, "file").update(owner=["root", "0", "root", 0, 0o600])
    ),
    "an owner beyond all numbers": lambda backup: remade(
        backup, lambda m, f: entry_of(m, "file").update(owner=["", (1 << 32) - 1, "", 1 << 32, 0o600])
    ),
    "a path with NUL": lambda backup: remade(backup, lambda m, f: entry_of(m, "file").update(path="/a\0b")),
    "state that is no database": lambda backup: remade(backup, lambda m, f: f.update({"007/state.db": b"x" * 9000})),
}  # fmt: skip


def manifest_with(backup: bytes, **values: object) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(backup)) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    manifest["entries"][0].update(values)
    return json.dumps(manifest).encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_good_backup_changes_nothing(site: Site, name: str) -> None:
    site.backup.write_bytes(HOSTILE[name](site.saved()))
    site.map.write_text("bob: bob@example.org\n")
    before = site.tree()
    status, out, err = site.run("restore", "--force", site.backup)
    assert status == restoring.EX_DATAERR, (out, err)
    assert err.count("\n") == 1
    assert site.tree() == before


def test_where_files_go_is_not_for_the_archive_to_say(site: Site) -> None:
    site.backup.write_bytes(remade(site.saved(), lambda m, f: entry_of(m, "state").update(path="/etc/state.db")))
    site.wipe()
    assert site.run("restore", site.backup)[0] == 0
    assert rows(site.database) == [1]
    assert not os.path.lexists("/etc/state.db")


def test_no_mode_lets_others_write_or_become_somebody(site: Site) -> None:
    owner = site.key.stat()
    site.backup.write_bytes(
        remade(
            site.saved(),
            lambda m, f: [entry.update(owner=["", owner.st_uid, "", owner.st_gid, 0o6602]) for entry in m["entries"]],
        )
    )
    site.wipe()
    assert site.run("restore", site.backup)[0] == 0
    assert stat.S_IMODE(site.key.stat().st_mode) == 0o600


def test_a_configuration_with_mistakes_changes_nothing(site: Site) -> None:
    site.configure("[policy]\npreset = strickt\n")
    site.backup.write_bytes(b"")
    good = site.ini.read_bytes()
    site.configure()
    broken = remade(site.saved(), lambda m, f: f.update({"001/authmilter.ini": good}))
    site.backup.write_bytes(broken)
    site.wipe()
    status, _, err = site.run("restore", site.backup)
    assert status == 78
    assert f"{site.ini}:13: [policy] preset" in err
    assert not site.etc.exists()


def test_a_key_that_can_t_be_used_changes_nothing(site: Site) -> None:
    site.backup.write_bytes(remade(site.saved(), lambda m, f: f.update({"002/k.pem": b"no key\n"})))
    site.wipe()
    status, _, err = site.run("restore", site.backup)
    assert status == 78
    assert f"{site.ini}:3: [sign example.org]" in err
    assert str(site.key) in err
    assert ".authmilter-" not in err
    assert not site.etc.exists()


def test_the_place_of_the_configuration_has_to_be_said_if_it_is_not_the_usual_one(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.saved()
    site.wipe()
    assert main(["restore", str(site.backup)]) == 69
    assert "say with -c" in capsys.readouterr().err
    assert not site.etc.exists()


def test_if_one_file_can_t_be_put_in_place_all_is_as_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.saved()
    for path in (site.map, site.password):
        path.write_text("x: x@example.org\n")
    before = site.tree()
    rename, count = os.rename, 0

    def failing(*arguments: Any, **more: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(28, "No space left on device")
        rename(*arguments, **more)

    monkeypatch.setattr(os, "rename", failing)
    status, _, err = site.run("restore", "--force", site.backup)
    assert (status, count >= 3) == (69, True)
    assert "No space left on device" in err
    assert site.tree() == before


def test_a_backup_without_a_file_that_the_configuration_names_is_not_made(site: Site) -> None:
    site.backup.write_bytes(b"the last one")
    site.key.unlink()
    status, _, err = site.run("backup", site.backup)
    assert status == 69
    assert str(site.key) in err
    assert site.backup.read_bytes() == b"the last one"
    assert sorted(path.name for path in site.folder.iterdir()) == ["backup.tar.gz", "etc", "state"]


def test_a_backup_of_a_damaged_database_is_not_made(site: Site) -> None:
    with closing(sqlite3.connect(site.database)) as base:
        base.execute("PRAGMA journal_mode = DELETE")
        base.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(5000)])
        base.commit()
    octets = bytearray(site.database.read_bytes())
    octets[8192:12288] = b"\xff" * 4096
    site.database.write_bytes(octets)
    status, _, err = site.run("backup", site.backup)
    assert status == 69
    assert str(site.database) in err
    assert not site.backup.exists()


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
def test_a_backup_replaces_files_alone(site: Site, kind: str) -> None:
    make: dict[str, Callable[[], None]] = {
        "folder": site.backup.mkdir,
        "link": lambda: site.backup.symlink_to(site.key),
        "fifo": lambda: os.mkfifo(site.backup),
    }
    make[kind]()
    status, _, err = site.run("backup", site.backup)
    assert status == 69
    assert "is no regular file" in err
    assert site.key.read_bytes() == KEY


@needs_root
@pytest.mark.parametrize("name", ["state.db", "classifier.table.learned", "classifier.table.spool"])
@pytest.mark.parametrize("kind", ["link", "second name"])
def test_the_user_of_the_daemon_can_t_have_files_of_root_put_into_a_backup(site: Site, name: str, kind: str) -> None:
    for path in (site.state, *site.state.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    (site.state / name).unlink()
    if kind == "link":
        (site.state / name).symlink_to(site.password)
    else:
        os.link(site.password, site.state / name)
    status, _, err = site.run("backup", site.backup)
    assert status == 69
    assert ("is a link" if kind == "link" else "has another name") in err
    assert not site.backup.exists()


@needs_root
def test_the_user_of_the_daemon_can_t_have_files_of_root_replaced(site: Site) -> None:
    os.chown(site.state, NOBODY, NOBODY)
    for path in site.state.iterdir():
        os.chown(path, NOBODY, NOBODY)
    site.saved()
    shutil.rmtree(site.state)
    prey = site.folder / "prey"
    prey.mkdir()
    (site.folder / "his").mkdir()
    os.chown(site.folder / "his", NOBODY, NOBODY)
    site.state.symlink_to(prey)
    os.lchown(site.state, NOBODY, NOBODY)
    status, _, err = site.run("restore", site.backup)
    assert status == 69
    assert "is a link" in err
    assert list(prey.iterdir()) == []


@needs_root
def test_copies_of_keys_do_not_lie_where_the_user_of_the_daemon_can_move_them(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He owns the folder that the backup is written to, and waits there for a folder of root's to put a link in its place."""
    site.folder.chmod(0o755)
    all_to(site, NOBODY)
    os.chown(site.folder, 0, 0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    used: list[Path] = []
    make = tempfile.mkdtemp

    def watched(prefix: str, dir: Path) -> str:  # noqa: A002  its name in tempfile
        used.append(dir)
        return make(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkdtemp", watched)
    assert site.run("backup", "--quiet", site.state / "backup.tar.gz") == (0, "", "")
    assert used == [tmp_path.resolve()]
    tmp_path.chmod(0o777)
    status, _, err = site.run("backup", "--quiet", site.state / "other.tar.gz")
    assert status == 69
    assert "set TMPDIR to a folder" in err
    assert not (site.state / "other.tar.gz").exists()


@needs_root
@pytest.mark.parametrize("owner", [0, NOBODY])
def test_a_journal_of_others_is_not_for_root_to_obey(site: Site, owner: int) -> None:
    """Who may write to the folder leaves a journal to roll back, with the name of a file that SQLite is to remove then."""
    site.folder.chmod(0o755)
    victim = site.folder / "victim"
    victim.write_text("root's")
    site.database.unlink()
    with closing(sqlite3.connect(site.database)) as base:
        base.execute("PRAGMA cache_size = 1")
        base.execute("CREATE TABLE t (n)")
        base.executemany("INSERT INTO t VALUES (?)", [(b"x" * 3000,)] * 50)
        base.commit()
        base.execute("UPDATE t SET n = zeroblob(3000)")
        journal = Path(f"{site.database}-journal").read_bytes()
    name = str(victim).encode()
    trailer = (
        (2**30 // 4096 + 1).to_bytes(4, "big") + name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big")
    )
    Path(f"{site.database}-journal").write_bytes(journal + trailer + journal[:8])
    for path in site.state.iterdir():
        os.chown(path, owner if path == site.database else NOBODY, NOBODY)
    os.chown(site.state, 0, NOBODY)
    site.state.chmod(0o2770)
    site.run("backup", "--quiet", site.backup)
    assert victim.exists()


@needs_root
def test_state_in_a_folder_of_root_s_that_the_daemon_may_write_to(site: Site) -> None:
    os.chown(site.state, 0, NOBODY)
    site.folder.chmod(0o755)
    site.state.chmod(0o2770)
    for path in site.state.iterdir():
        os.chown(path, NOBODY, NOBODY)
    before = dump(site.database)
    site.saved()
    site.wipe()
    assert site.run("restore", site.backup)[0] == 0
    assert dump(site.database) == before


def test_a_spool_that_grows_without_bound_takes_no_room(site: Site) -> None:
    """What could not be restored is not saved."""
    os.truncate(site.state / "classifier.table.spool", 1 << 40)
    status, _, err = site.run("backup", "--quiet", site.backup)
    assert status == 69
    assert "classifier.table.spool: is too large" in err
    assert not site.backup.exists()


def test_what_can_t_be_taken_back_does_not_keep_the_rest_from_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user of the daemon removes what is kept of his file, and the disk fails at the next."""
    site.saved()
    site.map.write_text("bob: bob@example.org\n")
    site.ini.write_text(site.ini.read_text() + "# newer\n")
    site.password.write_text("closed\n")
    before = {path: path.read_bytes() for path in (site.ini, site.password)}
    rename = os.rename
    done: list[str] = []

    def failing(old: Any, new: Any, **folders: int) -> None:
        if ".before-restore-" in str(old):
            return rename(old, new, **folders)
        if done == ["authmilter.ini", "map"]:
            for kept in site.etc.glob("map.before-restore-*"):
                kept.unlink()
            raise OSError(28, "No space left on device")
        done.append(new)
        return rename(old, new, **folders)

    monkeypatch.setattr(os, "rename", failing)
    status, _, err = site.run("restore", "--force", site.backup)
    assert status == 69
    assert "No space left" in err
    assert "map: can't be made what it was" in err
    assert {path: path.read_bytes() for path in before} == before
    assert not [path.name for path in site.etc.iterdir() if "before-restore" in path.name]


@needs_root
def test_owners_come_back_with_their_folder(site: Site) -> None:
    os.chown(site.state, NOBODY, NOBODY)
    for path in site.state.iterdir():
        os.chown(path, NOBODY, NOBODY)
    site.state.chmod(0o700)
    before = site.tree()
    site.saved()
    assert {path.stat().st_uid for path in site.state.iterdir()} == {NOBODY}
    site.wipe()
    assert site.run("restore", site.backup)[0] == 0
    assert site.tree() == before


@needs_root
def test_owners_that_do_not_exist_here_are_told_before_anything_is_touched(site: Site) -> None:
    site.backup.write_bytes(
        remade(site.saved(), lambda m, f: entry_of(m, "state").update(owner=["nosuchuser", 9, "nogroup", 9, 0o600]))
    )
    site.wipe()
    status, _, err = site.run("restore", site.backup)
    assert status == 69
    assert "no user nosuchuser" in err
    assert not site.etc.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_who_is_ended_leaves_no_copies_of_keys(site: Site, number: signal.Signals) -> None:
    """It waits for a database that somebody else holds, when the signal comes."""
    with closing(sqlite3.connect(site.database)) as base:
        base.execute("PRAGMA journal_mode = DELETE")
        base.execute("BEGIN EXCLUSIVE")
        # Under nohup the tests ignore some signals, and what they start would as well.
        usual = ["env", f"--default-signal={number.name.removeprefix('SIG')}"]
        command = [*usual, sys.executable, "-m", "authmilter.cli", "-c", str(site.ini), "backup", str(site.backup)]
        with subprocess.Popen(command, cwd=ROOT) as process:
            wait_until(lambda: bool(list(site.folder.glob(".authmilter-*/0"))), 10, "a copy of the first file")
            process.send_signal(number)
            time.sleep(0.2)
            base.rollback()
            assert process.wait(20) == 128 + number
    assert sorted(path.name for path in site.folder.iterdir()) == ["etc", "state"]


def test_who_is_ended_while_copies_are_removed_leaves_none_of_them(tmp_path: Path) -> None:
    code = """
import os, signal, sys, threading
from pathlib import Path
from authmilter.cli.backup import staging
with staging(Path(sys.argv[1])) as folder:
    for number in range(30_000):
        (folder / str(number)).touch()
    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False, timeout=60)
    assert done.returncode in (0, -signal.SIGTERM), "once all is removed it ends at once"
    assert not list(tmp_path.iterdir())


# The n-th time that a file gets another name, a signal comes right after it.
ENDED_AT = """
import os, signal, sys
from authmilter.cli import restore
from authmilter.cli.__main__ import main
rename, left = restore._rename, [int(sys.argv[1])]
def renaming(*arguments):
    rename(*arguments)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGTERM)
restore._rename = renaming
sys.exit(main(["-c", *sys.argv[2:]]))
"""


@pytest.mark.parametrize("number", range(1, 10))
def test_who_is_ended_during_the_change_has_all_or_nothing_of_it(site: Site, number: int) -> None:
    old = site.tree()
    site.saved()
    for path in (site.map, site.password):
        path.write_text("changed")
    with closing(sqlite3.connect(site.database)) as base:
        base.execute("INSERT INTO t VALUES (2)")
        base.commit()
    new = site.tree()
    command = [sys.executable, "-c", ENDED_AT, str(number), str(site.ini), "restore", "--force", str(site.backup)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert done.returncode in (0, 128 + signal.SIGTERM)
    found = {path: state for path, state in site.tree().items() if "before-restore" not in path}
    assert found in (old, new)


AS_NOBODY = """
import os, sys
import authmilter.cli.restore, authmilter.files  # what nobody may not be able to read
from authmilter.cli.__main__ import main
from authmilter.config import ini
ini.load(None, b"#".decode("utf-8-sig"))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main(["-c", *sys.argv[1:]]))
"""


def as_nobody(site: Site, *words: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(site.ini), *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def all_to(site: Site, owner: int) -> None:
    for path in [site.folder, *site.folder.rglob("*")]:
        os.chown(path, owner, owner)


@needs_root
def test_the_owner_of_all_needs_not_be_root(site: Site) -> None:
    all_to(site, NOBODY)
    before = site.tree()
    assert as_nobody(site, "backup", "--quiet", site.backup) == (0, "", "")
    shutil.rmtree(site.state)
    site.key.unlink()
    status, out, err = as_nobody(site, "restore", site.backup)
    assert (status, err) == (0, "")
    assert "takes root" not in out
    os.chown(site.state, NOBODY, NOBODY)
    assert site.tree() == before


@needs_root
def test_files_of_others_become_those_of_whoever_restores_them(site: Site) -> None:
    site.saved()
    site.wipe()
    all_to(site, NOBODY)
    status, out, _ = as_nobody(site, "restore", site.backup)
    assert status == 0
    assert "authmilter restore: " not in out
    assert "owners are not as they were: that takes root" in out
    assert site.key.stat().st_uid == NOBODY


@needs_root
def test_what_may_not_be_read_is_named(site: Site) -> None:
    all_to(site, NOBODY)
    os.chown(site.password, 0, 0)
    status, _, err = as_nobody(site, "backup", site.backup)
    assert status == 69
    assert f"{site.password}: permission denied: run this as root" in err
    assert not site.backup.exists()


# -- a daemon that runs ---------------------------------------------------------------------------------------------------


class Machine:
    """A daemon as another user, with all that it keeps in folders of its own, and commands as root types them."""

    def __init__(self, folder: Path, dns: str) -> None:
        self.folder = folder
        self.etc, self.state = folder / "etc", folder / "state"
        for path in (self.etc, self.state):
            path.mkdir(mode=0o750)
        os.chown(self.state, NOBODY, NOBODY)
        self.etc.chmod(0o755)
        self.ini = self.etc / "authmilter.ini"
        self.backup = folder / "backup.tar.gz"
        self.settings: dict[str, dict[str, object]] = {
            "milter": {"user": "nobody", "socket_group": ""},
            "identity": {"local_domains": "test"},
            "dns": {"nameservers": dns},
            "store": {"url": f"sqlite:{self.state}/state.db"},
            "greylist": {"enabled": "yes", "delay": "1s", "except_networks": "203.0.113.9"},
            "classifier": {"table": f"{self.state}/classifier.table", "minimum_ham": 50, "minimum_spam": 50, "enough_ham": 60},
            "sign example.org": {"selector": "s1", "key_file": secret(self.etc / "k.pem", KEY)},
        }  # fmt: skip

    def do(self, *words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "authmilter.cli", "-c", self.ini, *map(str, words)], cwd=ROOT, capture_output=True, text=True
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def keys(self) -> set[str]:
        return {
            json.loads(line)["key"]
            for line in self.do("state", "list", "greylist", "--limit", 100_000, "--json").splitlines()
        }

    def opinion(self) -> list[dict[str, Any]]:
        """What the classifier says of a spam message."""
        mail = self.folder / "mail.eml"
        mail.write_bytes(raw(1000, spam=True))
        words = [
            "--ip",
            "203.0.113.9",
            "--helo",
            "a.example",
            "--mail-from",
            "a@b.example",
            "--rcpt",
            "user@test",
            "--json",
        ]
        told: list[dict[str, Any]] = json.loads(self.do("check-message", *words, mail))["findings"]
        return [finding for finding in told if finding["symbol"].startswith("bayes_")]


def sender(number: int, net: int = 64) -> Visit:
    return Visit(ip=f"100.{net + number // 250 % 32}.{number % 250}.7", sender=f"a{number}@nowhere.example")


SIGNED = Visit(
    ip="192.0.2.9", login="alice", sender="alice@example.org", author="alice@example.org", recipients=("x@y.example",)
)


def signature(address: str) -> str:
    said = deliver(address, SIGNED)
    return next(text for text in said.fields if text.startswith("DKIM-Signature: "))


@pytest.fixture
def machine(folder: Path) -> Iterator[Machine]:
    with DNSServer() as dns:
        yield Machine(folder, dns.address)


@needs_root
@pytest.mark.slow
def test_a_daemon_under_load_is_backed_up_wiped_and_works_as_before(machine: Machine) -> None:
    known = [sender(number) for number in range(30)]
    with Daemon("inet", machine.settings) as daemon:
        shutil.copy(daemon.file, machine.ini)
        for kind in ("ham", "spam"):
            mails = machine.folder / kind
            mails.mkdir()
            for number in range(60):
                (mails / f"{number}.eml").write_bytes(raw(number, kind == "spam"))
            machine.do("learn", kind, mails)
        assert {deliver(daemon.address, visit).code for visit in known} == {451}
        before, opinion = machine.keys(), machine.opinion()
        assert len(before) == len(known)
        assert opinion
        with load([daemon.address], lambda number: sender(number, 96), 4, 0.0) as others:
            wait_until(lambda: len(others.said) > 50, 20, "50 visits")
            machine.do("backup", machine.backup)
            seen = len(others.said)
            wait_until(lambda: len(others.said) > seen + 50, 20, "50 more visits")
        assert others.lost == []
        assert {said.code for _, said in others.said} <= {451, 250}
        assert daemon.metrics().value("authmilter_store_errors_total") == 0
        assert "s=s1" in signature(daemon.address)
        assert {path.stat().st_uid for path in machine.state.iterdir()} == {NOBODY}
        assert daemon.stop() == 0
    for folder in (machine.etc, machine.state):
        shutil.rmtree(folder)

    machine.do("restore", machine.backup)
    after = machine.keys()
    assert before < after, "the backup has what was there when it was begun, and some of what came meanwhile"
    assert machine.opinion() == opinion
    with Daemon("inet", {}) as unused:
        unused.stop()
    again = Daemon("inet", {})
    again.file, again.port, again.metrics_port = machine.ini, daemon.port, daemon.metrics_port
    with again:
        assert {deliver(again.address, visit).code for visit in known} == {250}, "they had waited before"
        assert "d=example.org" in signature(again.address)
        assert again.metrics().value("authmilter_store_errors_total") == 0
        assert {path.stat().st_uid for path in machine.state.iterdir()} == {NOBODY}


@needs_root
@pytest.mark.slow
def test_state_is_restored_under_a_daemon_that_goes_on(machine: Machine) -> None:
    known = [sender(number) for number in range(10)]
    with Daemon("inet", machine.settings) as daemon:
        shutil.copy(daemon.file, machine.ini)
        assert {deliver(daemon.address, visit).code for visit in known} == {451}
        machine.do("backup", machine.backup)
        # Forgotten: who comes now has to wait anew.
        machine.do("state", "forget", "greylist", *machine.keys())
        with load([daemon.address], lambda number: sender(number, 96), 4, 0.0) as others:
            wait_until(lambda: len(others.said) > 50, 20, "50 visits")
            machine.do("restore", "--force", machine.backup)
            wait_until(lambda: len(machine.keys()) > len(known) + 20, 20, "it writes to the file that was restored")
        assert others.lost == []
        assert {said.code for _, said in others.said} <= {451, 250}
        assert {deliver(daemon.address, visit).code for visit in known} == {250}
        assert daemon.stop() == 0
    with closing(sqlite3.connect(machine.state / "state.db")) as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
