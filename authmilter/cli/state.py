"""`authmilter state`: what is kept across messages, for an operator who must release a sender now.

It opens the store of the configuration itself, while the daemon runs, or does not.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import pwd
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from authmilter.cli import EX_USAGE
from authmilter.cli.subject import Subject
from authmilter.cli.terminal import duration, escaped, paint, plural, table, unescaped
from authmilter.config import ini
from authmilter.config.endpoint import parse_store
from authmilter.config.option import Seconds, suggestion
from authmilter.config.schema import Config
from authmilter.errors import ConfigError, StartError, StoreError
from authmilter.interfaces import Entry, ManagedStore, Space
from authmilter.server.state import find_state
from authmilter.spaces import spaces
from authmilter.store import load_password, open_store
from authmilter.store.front import Front

EX_NOTHING = 1
LIMIT = 1000
PAGE = 200  # rows that are aligned together
PATIENCE = Seconds(10.0)  # an operator waits longer than a message does
ALL = sys.maxsize
_LONGEST_VALUE = 40  # characters of it that a row shows


class Kept(NamedTuple):
    """An entry with its place."""

    space: Space
    key: str
    entry: Entry


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`, `forget` and `export`."""
    deeds = parser.add_subparsers(metavar="list|forget|export", required=True, dest="deed")
    one = _deed(deeds, "list", "Show entries, with their keys as `forget` takes them.")
    one.add_argument("space", nargs="?", metavar="SPACE", help="kind of state (default: all)")
    one.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="what the keys begin with")
    one.add_argument(
        "--subject", metavar="TEXT", help="only what names this address, network, mailbox, domain or login"
    )
    one.add_argument("--limit", type=_number, default=LIMIT, metavar="N", help=f"entries at most (default: {LIMIT})")
    one.add_argument("--json", action="store_true", help="one JSON object per line")
    one = _deed(deeds, "forget", "Forget entries.")
    one.add_argument("space", nargs="?", metavar="SPACE", help="kind of state")
    one.add_argument("keys", nargs="*", metavar="KEY", help="keys as `list` shows them")
    one.add_argument(
        "--subject", metavar="TEXT", help="in all spaces: what names this address, network, mailbox, domain or login"
    )
    one = _deed(deeds, "export", "Write every entry, as one JSON object per line.")
    one.add_argument("space", nargs="?", metavar="SPACE", help="kind of state (default: all)")
    parser.epilog = (
        "Exit status: 0 done, 1 there was nothing to forget, 69 the store is not to be had, 78 the configuration can't "
        "be used."
    )


def _deed(deeds: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = deeds.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument("-c", "--config", metavar="FILE", default=argparse.SUPPRESS, help="configuration")
    return parser


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:18]) == int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError, and StartError if the store is not to be had."""
    known = spaces()
    if args.space is not None and args.space not in known:
        names = ", ".join(known) or "there is none"
        return _usage(f"unknown space {escaped(args.space)!r}{suggestion(args.space, known)}: {names}")
    if args.deed == "forget" and bool(args.keys) is (args.subject is not None):
        return _usage("forget takes SPACE KEY..., or --subject TEXT")
    if args.deed == "forget" and args.subject is not None and args.space is not None:
        return _usage("forget --subject looks in all spaces: name none")
    if getattr(args, "subject", None) is not None and not Subject(args.subject).text:
        return _usage("--subject must not be empty")
    chosen = list(known.values()) if args.space is None else [known[args.space]]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a key may have letters that the locale has not
    config = ini.load(ini.find(args.config), check_files=False)
    path = _file(config)
    if path is None and parse_store(config.store.url).kind == "sqlite":
        print("nothing kept yet", file=sys.stderr)
        return EX_NOTHING if args.deed == "forget" else 0
    password = _password(config)
    if path is not None:
        _become_owner(path)
    try:
        return asyncio.run(_run(args, config, path, password, chosen))
    except StoreError as error:
        raise StartError(str(error)) from None


def _usage(message: str) -> int:
    print(f"authmilter state: {message}", file=sys.stderr)
    return EX_USAGE


# -- the store --------------------------------------------------------------------------------------------------------


def _file(config: Config) -> Path | None:
    """The file of the state, if it is in a file, and there is one."""
    if parse_store(config.store.url).kind == "memory":
        raise StartError(
            "[store] url is memory: each worker keeps its own state, which nobody else can look at; a restart forgets it"
        )
    try:
        path = find_state(config.store.url)
        if path is not None and not os.access(path, os.R_OK | os.W_OK):
            _refuse(path)
        # SQLite makes files beside it.
        if path is not None and not os.access(path.parent, os.R_OK | os.W_OK | os.X_OK):
            _refuse(path.parent)
    except PermissionError as error:
        _refuse(Path(error.filename))
    return path


def _refuse(path: Path) -> NoReturn:
    raise StartError(f"{path}: permission denied: run this as root, or as the user of the daemon")


def _become_owner(path: Path) -> None:
    """As root, go on as the owner of the file.

    What SQLite or we have to make anew is then the daemon's too, and whatever is in the file is read without the rights
    of root.
    """
    status = path.lstat()
    if os.geteuid() != 0 or status.st_uid == 0:
        return
    try:
        os.setgroups([status.st_gid])
        os.setgid(status.st_gid)
        os.setuid(status.st_uid)
    except OSError as error:
        raise StartError(f"{path}: can't become its owner, user {_user(status.st_uid)}: {error}") from None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _password(config: Config) -> str:
    try:
        return load_password(config.store.password_file)
    except ValueError as error:
        raise ConfigError([f"[store] password_file: {error}"]) from None


async def _run(args: argparse.Namespace, config: Config, path: Path | None, password: str, chosen: list[Space]) -> int:
    options = replace(
        config.store,
        timeout=max(config.store.timeout, PATIENCE),
        connect_timeout=max(config.store.connect_timeout, PATIENCE),
    )
    store = open_store(options, path, password=password)
    try:
        if isinstance(store, Front):
            store.silence()  # what fails is said once, by us
            await store.open()
        if args.deed == "list":
            return await _list(args, store, chosen)
        if args.deed == "export":
            return await _export(store, chosen)
        if args.subject is None:
            return await _forget(store, chosen[0], args.keys)
        return await _forget_subject(store, chosen, Subject(args.subject), hashed=config.store.hash_addresses)
    finally:
        await store.close()


async def _entries(store: ManagedStore, chosen: Iterable[Space], prefix: str, limit: int) -> AsyncIterator[Kept]:
    for space in chosen:
        async for key, entry in store.scan(space, prefix, limit):
            yield Kept(space, key, entry)


# -- list and export --------------------------------------------------------------------------------------------------


async def _list(args: argparse.Namespace, store: ManagedStore, chosen: list[Space]) -> int:
    subject = None if args.subject is None else Subject(args.subject)
    page: list[Kept] = []
    number = 0
    titled: Space | None = None
    # One more than is shown, to know whether there are more; among all where only some are wanted.
    limit = args.limit + 1 if subject is None else ALL
    async for kept in _entries(store, chosen, unescaped(args.prefix), limit):
        if subject is not None and not subject.is_named_by(kept.key):
            continue
        number += 1
        if number > args.limit:
            break
        if args.json:
            print(_json(kept))
            continue
        if page and (len(page) == PAGE or kept.space is not page[0].space):
            _show(page, titled)
            titled, page = page[0].space, []
        page.append(kept)
    if page:
        _show(page, titled)
    if number > args.limit:
        print(f"authmilter state: there are more than these {args.limit:,}: see --limit", file=sys.stderr)
    if not number:
        print("nothing kept" if subject is None else f"nothing names {escaped(args.subject)}", file=sys.stderr)
    return 0


def _show(page: Sequence[Kept], titled: Space | None) -> None:
    """Print rows of one space, with titles unless it is `titled`, the one that the rows before them are of."""
    space = page[0].space
    first = space is not titled
    rows = [("count", "value", "age", "left", "key")] if first else []
    for _, key, entry in page:
        rows.append((_count(entry.total), _value(entry.value), duration(entry.age), duration(entry.ttl), escaped(key)))
    lines = table(rows)
    if first:
        title = f"{space.name}: {space.help}" if space.help else space.name
        lines[:1] = [*([""] if titled else []), paint(title, "title"), paint(lines[0], "dim")]
    print("\n".join(lines))


def _count(total: float) -> str:
    return f"{total:.2f}".rstrip("0").rstrip(".") if total else "-"


def _value(value: bytes) -> str:
    if not value:
        return "-"
    shown = escaped(value.decode("utf-8", "backslashreplace"))
    return shown if len(shown) <= _LONGEST_VALUE else shown[: _LONGEST_VALUE - 3] + "..."


async def _export(store: ManagedStore, chosen: list[Space]) -> int:
    async for kept in _entries(store, chosen, "", ALL):
        print(_json(kept))
    return 0


def _json(kept: Kept) -> str:
    space, key, entry = kept
    try:
        value = {"value": entry.value.decode()}
    except UnicodeDecodeError:
        value = {"value_base64": base64.b64encode(entry.value).decode()}
    numbers = {"total": entry.total, "age": round(entry.age, 3), "ttl": round(entry.ttl, 3)}
    return json.dumps({"space": space.name, "key": key, **value, **numbers})


# -- forget -----------------------------------------------------------------------------------------------------------


async def _forget(store: ManagedStore, space: Space, keys: list[str]) -> int:
    number = 0
    for key in keys:
        # As `list` shows it, or as it is.
        gone = [await store.delete(space, one) for one in dict.fromkeys((unescaped(key), key))]
        number += _tell(space, escaped(unescaped(key)), gone=any(gone))
    return 0 if number else EX_NOTHING


def _tell(space: Space, key: str, *, gone: bool) -> int:
    print(f"{'forgot' if gone else 'not there'}: {space.name} {key}")
    return gone


async def _forget_subject(store: ManagedStore, chosen: list[Space], subject: Subject, *, hashed: bool) -> int:
    number = 0
    for space in chosen:
        for key in subject.keys() if hashed and space.personal else ():
            if await store.delete(space, key):
                number += _tell(space, escaped(key), gone=True)
        async for key, _ in store.scan(space, "", ALL):
            if subject.is_named_by(key) and await store.delete(space, key):
                number += _tell(space, escaped(key), gone=True)
    print(f"{plural(number, 'entry') if number == 1 else f'{number:,} entries'} forgotten", file=sys.stderr)
    blind = [space.name for space in chosen if space.personal]
    if hashed and blind:
        print(
            f"authmilter state: keys of {', '.join(blind)} are kept as hashes ([store] hash_addresses): of these only "
            "such were found as consist of this alone",
            file=sys.stderr,
        )
    return 0 if number else EX_NOTHING
