"""Where the daemon keeps what outlives it."""

import os
from pathlib import Path

SYSTEM_DIRECTORY = Path("/var/lib/authmilter")


def state_directory() -> Path:
    """What systemd names, else the usual one of root, else that of the user."""
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return SYSTEM_DIRECTORY
    return Path.home() / ".local/state/authmilter"
