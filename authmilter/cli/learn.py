"""`authmilter learn`: teach the classifier what spam and good mail of this site look like."""

import argparse
import errno
import json
import os
import pwd
import stat
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authmilter.cli import EX_USAGE
from authmilter.cli.terminal import Progress, duration, escaped, plural
from authmilter.config import ini
from authmilter.errors import StartError, StoreError
from authmilter.state_directory import acting_as_owner

if TYPE_CHECKING:
    from authmilter.checks.classifier import Classifier
    from authmilter.classifier.learned import Counts, Learned
    from authmilter.stored_mail import StoredMail

EX_PROBLEMS = 1
EX_DATAERR = 65
BATCH = 256  # messages that are kept at once: who is killed has lost these at most
_PATHS = (
    "a message, an mbox or a tar archive, packed or not; a folder or maildir with all below it; - is standard input"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to learn, and as what."""
    kinds = parser.add_subparsers(metavar="ham|spam", dest="kind")
    for kind, text in (("ham", "good mail"), ("spam", "spam")):
        own = kinds.add_parser(kind, help=f"learn that this is {text}", description=f"Learn that this is {text}.")
        own.add_argument("paths", nargs="+", metavar="PATH", help=_PATHS)
        _switches(own, argparse.SUPPRESS)
    parser.add_argument(
        "--forget", nargs="+", metavar="PATH", help="forget these messages, whatever they were learned as"
    )
    parser.add_argument(
        "--forget-auto",
        action="store_true",
        help="forget all that the daemon learned by itself ([classifier] auto_learn)",
    )
    _switches(parser, False)
    parser.epilog = (
        "Without ham or spam it trains from what is kept, and tells how much that is.  A message that was learned before is "
        "not learned twice; as the other kind, it changes to that.  The daemon uses the result within a second, and goes on with what it has until "
        "then.  Exit status: 1 if a path could not be read, 65 if there was no message in any, 69 if what was learned can't "
        "be kept."
    )


def _switches(parser: argparse.ArgumentParser, default: object) -> None:
    words = "only keep what was learned: the daemon trains from it soon, or the next `authmilter learn`"
    parser.add_argument("--later", action="store_true", default=default, help=words)
    words = "no progress, and no word if all went well"
    parser.add_argument("--quiet", action="store_true", default=default, help=words)
    parser.add_argument("--json", action="store_true", default=default, help="one JSON object instead of text")


def run(args: argparse.Namespace) -> int:
    """Learn or forget, and train; raises ConfigError, and StartError if the files are not to be had."""
    from authmilter.checks.classifier import Classifier
    from authmilter.classifier import table
    from authmilter.classifier.learned import Learned

    if (args.forget or args.forget_auto) and args.kind:
        return _usage("--forget goes without ham or spam: it does not matter what they were learned as")
    config = ini.load(ini.find(args.config), check_files=False)
    options: Classifier = config.of(Classifier)
    path = table.find(options.table)
    has_bar = not (args.quiet or args.json) and sys.stderr.isatty()
    progress = Progress(has_bar)
    try:
        _make_folder(path.parent, config.milter.user)
        _hand_over(path)
        _check_folder(path.parent)
        as_owner = partial(acting_as_owner, path.parent)
        with as_owner():
            _check_access(path)
            learned = Learned(path.with_name(path.name + table.SUFFIX))
        try:
            report = _Report()
            status = _Run(args, options, path, learned, as_owner, progress, has_bar).run(report)
        finally:
            progress.clear()
            with as_owner():
                learned.close()
        _show_to_daemon(path, config.milter.user)
    except StoreError as error:
        raise StartError(str(error)) from None
    except PermissionError as error:
        raise StartError(
            f"{error.filename or path}: permission denied: run this as root, or as the user of the daemon"
        ) from None
    except OSError as error:
        raise StartError(f"{error.filename or path}: {error.strerror}") from None
    if args.json:
        print(json.dumps(report))
    elif not args.quiet:
        print("\n".join(_text(report)))
    return status


# -- the files --------------------------------------------------------------------------------------------------------


def _make_folder(folder: Path, user: str) -> None:
    """Make the state directory, if the daemon has not yet; as root, for the user that it becomes."""
    missing = list(takewhile(lambda one: not one.is_dir(), (folder, *folder.parents)))
    if not missing:
        return
    with acting_as_owner(missing[-1].parent):  # whose it is might put a link in the place of what root makes there
        for one in reversed(missing):
            one.mkdir(mode=0o750 if one == folder else 0o755)
        is_roots = os.geteuid() == 0
    if is_roots and user:
        try:
            owner = pwd.getpwnam(user)
        except KeyError:
            raise StartError(f"[milter] user: there is no user {user!r}") from None
        os.chown(folder, owner.pw_uid, owner.pw_gid)


def _hand_over(path: Path) -> None:
    """As root, give what root once made in a folder of another to him, since we act as he does there."""
    folder = path.parent.stat()
    if os.geteuid() != 0 or folder.st_uid == 0:
        return
    from authmilter.classifier.table import SUFFIX

    for name in (path, path.with_name(path.name + SUFFIX)):
        with suppress(FileNotFoundError):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                status = os.fstat(file)
                # He may have put another name of a file there that must not be his.
                if status.st_uid == 0 and stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    os.fchown(file, folder.st_uid, folder.st_gid)
            finally:
                os.close(file)


def _check_folder(folder: Path) -> None:
    """In a folder of root's to which others may write, a journal of theirs would have SQLite, as root, remove what it names."""
    status = folder.stat()
    if os.geteuid() == 0 == status.st_uid and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StartError(
            f"{folder}: is root's, and others may write to it: chmod go-w it, or give it to the daemon's user"
        )


def _check_access(path: Path) -> None:
    """Raise PermissionError with the name of what is out of reach, which SQLite would not say."""
    from authmilter.classifier.table import SUFFIX

    for name in (path.parent, path.with_name(path.name + SUFFIX)):
        mode = os.R_OK | os.W_OK | (os.X_OK if name == path.parent else 0)
        if os.path.lexists(name) and not os.access(name, mode, effective_ids=True):
            if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(name))
            raise PermissionError(0, "", str(name))


def _show_to_daemon(path: Path, user: str) -> None:
    """As root, let the daemon read a table in a folder of root's."""
    if os.geteuid() == 0 and user and path.parent.stat().st_uid == 0:
        with suppress(KeyError, FileNotFoundError):
            os.chown(path, pwd.getpwnam(user).pw_uid, -1)


def _usage(message: str) -> int:
    print(f"authmilter learn: {message}", file=sys.stderr)
    return EX_USAGE


# -- the work ---------------------------------------------------------------------------------------------------------

_Report = dict[str, Any]


class _Run:
    """One run of the command."""

    def __init__(
        self,
        args: argparse.Namespace,
        options: "Classifier",
        path: Path,
        learned: "Learned",
        as_owner: Callable[[], AbstractContextManager[None]],
        progress: Progress,
        has_bar: bool,
    ) -> None:
        self._args = args
        self._options = options
        self._path = path
        self._learned = learned
        self._as_owner = as_owner
        self._progress = progress
        self._has_bar = has_bar

    def run(self, report: _Report) -> int:
        """Do it, and put into the report what was done; returns the exit status."""
        from authmilter.classifier.trainer import is_current, take_spool
        from authmilter.stored_mail import StoredMail

        args, options, learned = self._args, self._options, self._learned
        paths = args.forget or (args.paths if args.kind else [])
        mail = StoredMail(paths)
        report.update(outdated=learned.outdated, read=0, changed=0)
        for number, changed in self._read(mail):
            report["read"] = number
            report["changed"] += changed
        self._progress.clear()
        for problem in mail.problems:
            print(f"authmilter learn: {escaped(problem)}", file=sys.stderr)
        with self._as_owner():
            new = 0 if args.later else take_spool(
                self._path, learned, daily=options.auto_learn_daily, of_origin=options.auto_learn_sender
            )  # fmt: skip
            if args.forget_auto:
                report["changed"] += learned.forget_by_itself()
            dropped = learned.trim(options.keep)
            counts = learned.counts()
            current = is_current(self._path, learned)
        if not args.later and (not current or not paths):
            began = time.monotonic()
            counts = self._train()
            report["seconds"] = round(time.monotonic() - began, 3)
        report.update(
            kind=args.kind or ("forget" if args.forget or args.forget_auto else ""),
            skipped=mail.skipped,
            problems=mail.problems,
            from_daemon=new,
            dropped=dropped,
            waiting=args.later and not current,
            **counts._asdict(),
            lacking=_lacking(options, counts),
        )
        if paths and not report["read"]:
            if not mail.problems:
                print("authmilter learn: there is no message in any of these paths", file=sys.stderr)
            return EX_DATAERR
        return EX_PROBLEMS if mail.problems else 0

    def _read(self, mail: "StoredMail") -> Iterator[tuple[int, int]]:
        """Learn or forget each message; yields how many were read so far, and how many of these latest changed anything."""
        from authmilter.classifier.features import features
        from authmilter.classifier.learned import identity
        from authmilter.classifier.spool import Lesson

        size = mail.size if self._has_bar else 0
        spam = self._args.kind == "spam"
        seen = 0
        lessons: list[Lesson] = []
        for message in mail:
            seen += 1
            known_as = identity(message)
            if self._args.forget:
                lessons.append(Lesson(known_as, False, ()))
            elif self._kind(known_as) is not spam:
                # A set would take twenty times the room.
                lessons.append(Lesson(known_as, spam, array("I", features(message))))
            if len(lessons) >= BATCH:
                yield seen, self._keep(lessons)
                lessons = []
            self._progress.show(mail.done, size, plural(seen, "message"))
        yield seen, self._keep(lessons)

    def _kind(self, identity: bytes) -> bool | None:
        # A journal that the owner of the folder made up can name any file, and SQLite deletes it even if it only reads.
        with self._as_owner():
            return self._learned.kind(identity)

    def _keep(self, lessons: "list[Any]") -> int:
        with self._as_owner():
            if self._args.forget:
                return self._learned.forget(lesson.identity for lesson in lessons)
            return self._learned.add(lessons)

    def _train(self) -> "Counts":
        from authmilter.classifier.trainer import retrain
        from authmilter.classifier.training import STEPS

        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            self._progress.show(done, STEPS, "training")

        counts = retrain(self._path, self._learned, step, self._as_owner)
        self._progress.clear()
        return counts


# -- what was done ----------------------------------------------------------------------------------------------------


def _text(report: _Report) -> list[str]:
    lines = []
    if report["outdated"]:
        lines.append(
            f"{plural(report['outdated'], 'message')} that an earlier version learned had to be dropped: learn them again"
        )
    if report["kind"]:
        deed = "forgotten" if report["kind"] == "forget" else "new"
        lines.append(f"{plural(report['read'], 'message')} read, {report['changed']:,} {deed}")
    if report["skipped"]:
        lines.append(f"{plural(report['skipped'], 'file')} passed over, since there is no message in them")
    if report["from_daemon"]:
        lines.append(f"{plural(report['from_daemon'], 'message')} that the daemon chose")
    if report["dropped"]:
        lines.append(f"{report['dropped']:,} dropped, the oldest beyond [classifier] keep")
    if not (report["ham"] and report["spam"]):
        lines.append("not trained: that takes both ham and spam")
    elif "seconds" in report:
        lines.append(f"trained in {duration(max(1.0, report['seconds']))}")
    elif report["waiting"]:
        lines.append("not yet trained")
    own = f", {report['by_itself']:,} of them by the daemon itself" if report["by_itself"] else ""
    lacking = f"; {report['lacking']}" if report["lacking"] else ""
    return [*lines, f"kept: {report['ham']:,} ham, {report['spam']:,} spam{own}{lacking}"]


def _lacking(options: "Classifier", counts: "Counts") -> str:
    if counts.ham < options.minimum_ham or counts.spam < options.minimum_spam:
        return f"it says nothing before {options.minimum_ham:,} ham and {options.minimum_spam:,} spam"
    if counts.ham < options.enough_ham:
        return f"up to {options.enough_ham:,} ham its strength is at most {counts.ham / options.enough_ham:.0%}"
    return ""
