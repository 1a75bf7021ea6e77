"""Where state is kept that outlives a message: in a file, on a server, or in memory.

`interfaces.Store` is what checks see; `open_store` makes one from the configuration.
"""

import asyncio
import contextlib
import importlib
import time
from collections.abc import Callable
from pathlib import Path

from authmilter import secret_file
from authmilter.config.endpoint import parse_store
from authmilter.config.schema import Store as StoreOptions
from authmilter.errors import StoreError
from authmilter.interfaces import ManagedStore
from authmilter.store.front import OPERATIONS, Front
from authmilter.store.memory import MemoryStore

__all__ = ("OPERATIONS", "load_password", "open_store", "preload", "prove")


def open_store(
    options: StoreOptions,
    path: Path | None = None,
    *,
    password: str = "",
    on_error: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.time,
) -> ManagedStore:
    """The store of the configuration.  Made, used and closed on one running event loop, after the last fork.

    `path` is the file of ``sqlite:`` without one; `on_error` hears the operation of every request that failed (one of
    OPERATIONS); `clock` is that of a file or memory.  Nothing is opened before the first request, so a store that is not
    to be had raises StoreError from that.  Raises StoreError if a library is missing.
    """
    url = parse_store(options.url)
    if url.kind == "memory":
        return MemoryStore(max_entries=options.max_entries, hash_personal=options.hash_addresses, clock=clock)
    if url.kind == "sqlite":
        from authmilter.store.sqlite import SqliteStore

        file = Path(url.path) if url.path else path
        if file is None:
            raise StoreError("sqlite: has no path")
        return SqliteStore(
            file,
            timeout=options.timeout,
            connect_timeout=options.connect_timeout,
            max_size=options.max_size,
            hash_personal=options.hash_addresses,
            on_error=on_error,
            clock=clock,
        )
    try:
        from authmilter.store.redis import RedisStore  # a fifth of a second that only its users pay
    except ImportError as error:
        raise StoreError(f"{url.shown}: takes the Python package redis: {error}") from error
    return RedisStore(
        url,
        password=password,
        ca_file=options.ca_file,
        prefix=options.prefix,
        timeout=options.timeout,
        connect_timeout=options.connect_timeout,
        hash_personal=options.hash_addresses,
        on_error=on_error,
    )


def preload(options: StoreOptions) -> None:
    """Import what that store needs, as long as it can be read.  What is missing is told when it is opened."""
    with contextlib.suppress(ImportError):
        importlib.import_module(
            {"memory": "authmilter.store.memory", "sqlite": "authmilter.store.sqlite"}.get(
                parse_store(options.url).kind, "authmilter.store.redis"
            )
        )


def prove(options: StoreOptions, path: Path | None = None, *, password: str = "") -> None:
    """Open the store, write to it, and close it; raises StoreError if that fails.  Leaves no thread behind."""

    async def opened() -> None:
        store = open_store(options, path, password=password)
        try:
            if isinstance(store, Front):
                store.silence()
                await store.open()
        finally:
            await store.close()

    asyncio.run(opened())


def load_password(path: str) -> str:
    """The first line of `[store] password_file`; "" for no path.

    Raises ValueError with a text for the administrator if it can't be read, or if others than its owner can.
    """
    if not path:
        return ""
    line = secret_file.read(path, "password", 1025).partition(b"\n")[0].rstrip(b"\r")
    try:
        password = line.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8") from None
    if not password or len(line) > 1024:
        raise ValueError(f"{path}: its first line is no password")
    return password
