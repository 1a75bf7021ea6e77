"""`authmilter learn`: teach the classifier what spam and good mail of this site look like."""

import argparse
import os
import pwd
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from authmilter.cli import EX_USAGE
from authmilter.cli.terminal import Progress, duration, escaped, plural
from authmilter.config import ini
from authmilter.errors import StartError, StoreError

if TYPE_CHECKING:
    from authmilter.checks.classifier import Classifier
    from authmilter.classifier.learned import Learned

EX_PROBLEMS = 1
EX_DATAERR = 65
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
    _switches(parser, False)
    parser.epilog = (
        "Without any it trains from what is kept, and tells what that is.  A message that is learned again changes "
        "nothing, or what it is taken for.  The daemon uses the result within a second.  Exit status: 1 if a path could not "
        "be read, 65 if there was no message in any."
    )


def _switches(parser: argparse.ArgumentParser, default: object) -> None:
    words = "only keep what was learned: the next `authmilter learn` trains"
    parser.add_argument("--later", action="store_true", default=default, help=words)
    words = "no progress, and no word if all went well"
    parser.add_argument("--quiet", action="store_true", default=default, help=words)


def run(args: argparse.Namespace) -> int:
    """Learn or forget, and train; raises ConfigError, and StartError if the files are not to be had."""
    from authmilter.checks.classifier import Classifier
    from authmilter.classifier import table
    from authmilter.classifier.learned import SUFFIX, Learned

    if args.forget and args.kind:
        return _usage("--forget goes without ham or spam: it does not matter what they were learned as")
    config = ini.load(ini.find(args.config), check_files=False)
    options: Classifier = config.of(Classifier)
    path = table.find(options.table)
    progress = Progress(not args.quiet and sys.stderr.isatty())
    try:
        _make_folder(path.parent, config.milter.user)
        learned = Learned(path.with_name(path.name + SUFFIX))
        try:
            return _run(args, options, path, learned, progress)
        finally:
            progress.clear()
            learned.close()
    except StoreError as error:
        raise StartError(str(error)) from None
    except PermissionError as error:
        raise StartError(
            f"{error.filename}: permission denied: run this as root, or as the user of the daemon"
        ) from None
    except OSError as error:
        raise StartError(f"{error.filename or path}: {error.strerror}") from None


def _make_folder(folder: Path, user: str) -> None:
    """Make the state directory, if the daemon has not yet; as root, for the user that it becomes."""
    if folder.is_dir():
        return
    folder.mkdir(mode=0o750, parents=True)
    if user and os.geteuid() == 0:
        try:
            owner = pwd.getpwnam(user)
        except KeyError:
            raise StartError(f"[milter] user: there is no user {user!r}") from None
        os.chown(folder, owner.pw_uid, owner.pw_gid)


def _usage(message: str) -> int:
    print(f"authmilter learn: {message}", file=sys.stderr)
    return EX_USAGE


def _run(args: argparse.Namespace, options: "Classifier", path: Path, learned: "Learned", progress: "Progress") -> int:
    from authmilter.classifier.features import features
    from authmilter.classifier.learned import identity
    from authmilter.stored_mail import StoredMail

    learned.begin()
    if learned.outdated:
        print(
            f"{plural(learned.outdated, 'message')} that an earlier version learned had to be dropped: learn them again",
            file=sys.stderr,
        )
    paths = args.forget or (args.paths if args.kind else [])
    mail = StoredMail(paths)
    seen = changed = 0
    for message in mail:
        seen += 1
        if args.forget:
            changed += learned.forget(identity(message))
        else:
            changed += learned.add(identity(message), args.kind == "spam", features(message))
        progress.show(mail.done, mail.size, plural(seen, "message"))
    progress.clear()
    for problem in mail.problems:
        print(f"authmilter learn: {escaped(problem)}", file=sys.stderr)
    trimmed = learned.trim(options.keep)
    kept = learned.counts()
    words = []
    if paths:
        words.append(f"{plural(seen, 'message')} read, {changed:,} {'forgotten' if args.forget else 'new'}")
        if mail.skipped:
            words.append(f"{plural(mail.skipped, 'file')} passed over, since there is no message in them")
    if trimmed:
        words.append(f"{trimmed:,} dropped, the oldest beyond [classifier] keep")
    if not args.later:
        words.append(_train(path, learned, kept.ham, kept.spam, progress))
    learned.commit()
    words.append(f"kept: {kept.ham:,} ham, {kept.spam:,} spam{_lacking(options, kept.ham, kept.spam)}")
    if not args.quiet:
        print("\n".join(words))
    if paths and not seen:
        if not mail.problems:
            print("authmilter learn: there is no message in any of these paths", file=sys.stderr)
        return EX_DATAERR
    return EX_PROBLEMS if mail.problems else 0


def _train(path: Path, learned: "Learned", ham: int, spam: int, progress: "Progress") -> str:
    """Train, and put the table in its place; returns what was done."""
    from authmilter.classifier import table
    from authmilter.classifier.training import STEPS, train

    if not ham or not spam:
        path.unlink(missing_ok=True)
        return "not trained: that takes both ham and spam"
    began = time.monotonic()
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress.show(done, STEPS, "training")

    trained = train(list(learned.examples()), step)
    progress.clear()
    table.write(path, trained.weights, bias=trained.bias, curve=trained.curve, ham=ham, spam=spam)
    return f"trained in {duration(max(1.0, time.monotonic() - began))}"


def _lacking(options: "Classifier", ham: int, spam: int) -> str:
    if ham < options.minimum_ham or spam < options.minimum_spam:
        return f"; it says nothing before {options.minimum_ham:,} ham and {options.minimum_spam:,} spam"
    if ham < options.enough_ham:
        return f"; up to {options.enough_ham:,} ham its strength is at most {ham / options.enough_ham:.0%}"
    return ""
