"""What has to come out for each class of message."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# Every entry of a method must have that result; spf is the one of MAIL FROM.
EXPECTED = {
    "pass": {"spf": "pass", "dkim": "pass", "dmarc": "pass"},
    "dkimbad": {"spf": "pass", "dkim": "fail", "dmarc": "pass"},
    "spffail": {"spf": "fail", "dkim": "pass", "dmarc": "pass"},
    "bothbad": {"spf": "fail", "dkim": "fail", "dmarc": "fail"},
    "noauth": {"spf": "none", "dkim": "none", "dmarc": "none"},
}


class WrongAnswerError(Exception):
    """A filter did not answer as it has to, so that its speed says nothing."""


def results(fields: Iterable[str]) -> dict[str, set[str]]:
    """Method to results, of the values of Authentication-Results fields."""
    found: dict[str, set[str]] = {}
    for value in fields:
        for entry in re.sub(r"\([^()]*\)", "", value).split(";"):
            match = re.match(r"(?:\\[rnt]|\s)*(spf|dkim|dmarc)\s*=\s*(\w+)", entry)
            if match and "smtp.helo=" not in entry:
                found.setdefault(match[1], set()).add(match[2])
    return found


def problem(kind: str, fields: Iterable[str]) -> str:
    """What is wrong with the answer to a message of that class; empty if nothing is."""
    found = results(fields)
    wrong = [
        f"{method}={'+'.join(sorted(found.get(method, {'missing'})))} instead of {result}"
        for method, result in EXPECTED[kind].items()
        if found.get(method) != {result}
    ]
    return f"{kind}: {', '.join(wrong)}" if wrong else ""


def check_dump(path: Path) -> Counter[str]:
    """Check what milterload -V wrote; returns how many messages of each class were right.

    Raises WrongAnswerError if one was not, or if a class is missing.
    """
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    kind, file, fields = "", "", list[str]()

    def done() -> None:
        if kind in EXPECTED:
            text = problem(kind, fields)
            if text:
                wrong[text] += 1
                examples.setdefault(text, file)
            else:
                right[kind] += 1

    examples: dict[str, str] = {}
    with path.open(errors="replace") as lines:
        for line in lines:
            if line.startswith("MSG "):
                done()
                file, kind, fields = line.split()[1], line.split()[2].partition("=")[2], []
            elif match := re.match(r"  (?:INS\[\d+\]|ADD) Authentication-Results:(.*)", line):
                fields.append(match[1])
    done()
    if wrong:
        raise WrongAnswerError("; ".join(f"{n} x {text} ({examples[text]})" for text, n in wrong.most_common(8)))
    if missing := EXPECTED.keys() - right.keys():
        raise WrongAnswerError(f"no message of class {', '.join(sorted(missing))} was seen")
    return right
