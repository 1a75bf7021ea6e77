"""Where the daemon keeps what outlives it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SYSTEM_DIRECTORY = Path("/var/lib/authmilter")


def state_directory() -> Path:
    """What systemd names, else the usual one of root, else that of the user, if he has a home."""
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return SYSTEM_DIRECTORY
    try:
        return Path.home() / ".local/state/authmilter"
    except RuntimeError:  # a user without a name, as in a container
        return SYSTEM_DIRECTORY


@contextmanager
def acting_as_owner(folder: Path | int) -> Iterator[None]:
    """As root, be the owner of that folder for a while: what is made there is his, and no link of his leads elsewhere.

    A handle says which one is meant even if its path might be made to lead elsewhere; that of a file does as well.

    Raises OSError.  For programs with one thread.
    """
    if os.geteuid() != 0:
        yield
        return
    owner, group, groups = os.stat(folder), os.getegid(), os.getgroups()
    try:
        os.setgroups([owner.st_gid])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
