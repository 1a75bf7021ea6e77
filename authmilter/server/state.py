"""Where state is kept: made at start, and proven to be usable, so that nobody finds out later."""

import grp
import os
import pwd
import stat
from pathlib import Path

from authmilter.config.schema import Store
from authmilter.errors import StartError, StoreError
from authmilter.safe_files import Place, locate
from authmilter.state_directory import SYSTEM_DIRECTORY, state_directory
from authmilter.store import prove


def sqlite_path(url: str) -> Path | None:
    """The file of a ``sqlite:`` URL, None for other URLs; without a path it is state.db in the state directory."""
    if not url.startswith("sqlite:"):
        return None
    path = url.removeprefix("sqlite:")
    return Path(path) if path else state_directory() / "state.db"


def find_state(url: str) -> Path | None:
    """The file of a ``sqlite:`` URL that a daemon made, for whoever is not that daemon; None if there is none.

    Raises PermissionError if we must not know.
    """
    usual = sqlite_path(url)
    if usual is None:
        return None
    others = [SYSTEM_DIRECTORY / usual.name] if url == "sqlite:" else []  # of a daemon that the system started
    for path in (usual, *others):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return path
    return None


def make_state_directory(url: str, user: str, group: str) -> None:
    """Make the directory of the state file, as long as we are root, for the user that we become; those above it are root's."""
    path = sqlite_path(url)
    if path is None:
        return
    try:
        is_new = not path.parent.is_dir()
        if os.geteuid() != 0:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        elif is_new or url == "sqlite:":  # that one is ours: what an earlier start as root left there is handed on
            with locate(path, make=True) as place:
                if is_new:
                    os.fchmod(place.folder, 0o750)
                if user or group:
                    _hand_on(place, user, group)
    except (OSError, KeyError) as error:
        raise StartError(f"[store] url: {path.parent}: {error}") from error


def _hand_on(place: Place, user: str, group: str) -> None:
    """Give folder and files to that user and group ("" for either: as it is, and the group of the user)."""
    uid = pwd.getpwnam(user).pw_uid if user else -1
    gid = grp.getgrnam(group).gr_gid if group else pwd.getpwnam(user).pw_gid
    for name in os.listdir(place.folder):
        file = place._replace(path=place.path.with_name(name))
        status = file.status() if name.startswith(place.name) else None
        if status is not None and stat.S_ISREG(status.st_mode):
            # Who owns the folder may have given another name in it to a file of root's: `open` refuses that.
            handle = file.open()
            try:
                os.fchown(handle, uid, gid)
            finally:
                os.close(handle)
    os.fchown(place.folder, uid, gid)


def check_store(options: Store, path: Path | None, password: str = "") -> None:
    """Raise StartError if the store is not to be had: it is opened, written to, and closed.

    `path` is what `sqlite_path` said before root was given up.
    """
    try:
        prove(options, path, password=password)
    except StoreError as error:
        raise StartError(f"[store] url: {error}") from error
