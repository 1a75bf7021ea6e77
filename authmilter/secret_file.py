"""Files that only their owner may read: private keys and passwords."""

import logging
import os
import stat

log = logging.getLogger("authmilter.secret_file")

_read_before: dict[str, bytes] = {}


def read(path: str, what: str, limit: int) -> bytes:
    """The first `limit` octets of the file; `what` is in it, such as ``key``.

    What was read before, and can't be read any more since this process gave up root, is still known: a reload then works as
    long as the file stays what it is.  Raises ValueError with a text for the administrator, which names the file, if it
    can't be read, or if others than its owner can read or write it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not keep us waiting
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path}: is no regular file")
            if status.st_mode & 0o066:
                raise ValueError(
                    f"{path}: others than its owner can read or change this {what} (mode {status.st_mode & 0o777:04o}): "
                    f"chmod 600 {path}"
                )
            octets = file.read(limit)
    except PermissionError as error:
        if path not in _read_before:
            raise ValueError(f"{path}: can't be read: {error.strerror}") from None
        log.warning("%s can't be read as this user: the %s that was read at start stays in use", path, what)
        return _read_before[path]
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from None
    _read_before[path] = octets
    return octets
