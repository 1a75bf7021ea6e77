"""Where state is kept: made at start, and proven to be usable, so that nobody finds out later."""

import grp
import os
import pwd
from pathlib import Path

from authmilter.config.schema import Store
from authmilter.errors import StartError, StoreError
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
    """Make the directory of the state file, as long as we are root, for the user that we become."""
    path = sqlite_path(url)
    if path is None:
        return
    usual = url == "sqlite:"  # ours: what an earlier start as root left there is handed on
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o750, parents=True)
        elif not usual:
            return
        if os.geteuid() == 0 and (user or group):
            uid = pwd.getpwnam(user).pw_uid if user else -1
            gid = grp.getgrnam(group).gr_gid if group else pwd.getpwnam(user).pw_gid
            for name in (path.parent, *path.parent.glob(f"{path.name}*")):
                os.chown(name, uid, gid, follow_symlinks=False)
    except (OSError, KeyError) as error:
        raise StartError(f"[store] url: {path.parent}: {error}") from error


def check_store(options: Store, path: Path | None, password: str = "") -> None:
    """Raise StartError if the store is not to be had: it is opened, written to, and closed.

    `path` is what `sqlite_path` said before root was given up.
    """
    try:
        prove(options, path, password=password)
    except StoreError as error:
        raise StartError(f"[store] url: {error}") from error
