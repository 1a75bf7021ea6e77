"""The text of `check-message`: what was found, what follows, and why."""

import os
import sys
from collections.abc import Sequence
from typing import Any

_COLOURS = {
    "pass": "32",
    "accept": "32",
    "fail": "31",
    "permerror": "31",
    "reject": "31",
    "discard": "31",
    "temperror": "33",
    "tempfail": "33",
    "softfail": "33",
    "policy": "33",
    "tag": "33",
    "quarantine": "33",
}


def show(report: dict[str, Any], scored: Sequence[tuple[str, float]]) -> None:
    """Print the report for people: colour on a terminal, plain text in a pipe.

    `scored` are all weights that were added up.  Results have weights too, and without them the column would not sum up to
    the score.
    """
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def paint(word: str, width: int = 0) -> str:
        code = _COLOURS.get(word)
        return f"\033[{code}m{word:{width}}\033[0m" if colour and code else f"{word:{width}}"

    reply = report["reply"]
    print(
        f"action     {paint(report['action'])} at {report['stage']}, {report['direction']}, score {report['score']:g}"
    )
    if not report["enforced"]:
        print("           not enforced: the daemon accepts this message")
    if report["because"]:
        print(f"because    {', '.join(report['because'])}")
    if reply:
        print(f"reply      {reply['code']} {reply['enhanced']} {reply['text']}")
    for recipient in report["refused_recipients"] if report["stage"] != "rcpt" else ():
        said = recipient["reply"]
        print(f"refused    {_plain(recipient['address'])}: {said['code']} {said['enhanced']} {said['text']}")
    if report["signed"]:
        print(f"signed     {report['signed']}")
    if report["results"]:
        print("\nmethod     result     identifier")
        for result in report["results"]:
            print(f"{result['method']:10} {paint(result['result'], 10)} {_plain(result['identifier'])}")
            if result["reason"]:
                print(f"{'':21} {_plain(result['reason'])}")
    found = {finding["symbol"] for finding in report["findings"]}
    of_results = [(symbol, weight) for symbol, weight in scored if symbol not in found]
    if found or of_results:
        print("\nsymbol                    score  stage    detail")
        for finding in report["findings"]:
            print(
                f"{finding['symbol']:24} {finding['score']:6g}  {finding['stage']:8} {_plain(finding['detail'])}".rstrip()
            )
        for symbol, weight in of_results:
            print(f"{symbol:24} {weight:6g}  {report['stage']:8} by the results above")
    if report["edits"]:
        print("\nedits to the header section")
        for edit in report["edits"]:
            value = _plain(edit["value"].replace("\n\t", "\n"), keep="\n").replace("\n", "\n" + " " * 12)
            print(f"  {edit['op']:6} {edit['index']:2} {edit['name']}{': ' if value else ''}{value}")
    for name, opinion in report.get("reference", {}).items():
        print(f"\n{name} says")
        for line in opinion:
            print(f"  {_plain(line)}")


def _plain(text: str, keep: str = "") -> str:
    """Values come from the message: no control character of it reaches the terminal."""
    return "".join(c if c.isprintable() or c in keep else f"\\x{ord(c):02x}" for c in text)
