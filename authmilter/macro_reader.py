"""What olevba of oletools says of the macros of a document, in a process of its own.

oletools takes a third of a second and more for a document, and is not made to be bounded; so the process is, in time,
memory and what it may answer, and no more than a few run at once.  oletools is not needed for anything else: it comes with
``pip install authmilter[macros]``.
"""

import asyncio
import json
import os
import resource
import sys
from typing import NamedTuple

from authmilter.errors import ScanError

MEMORY = 512 * 1024 * 1024
MAX_ANSWER = 16 * 1024
MAX_KEYWORDS = 10  # of each sort
MAX_LENGTH = 60  # characters of a keyword
_NOT_INSTALLED = 3


class Macros(NamedTuple):
    """Keywords of procedures that run by themselves, and of calls that are suspicious."""

    autorun: tuple[str, ...]
    suspicious: tuple[str, ...]


async def read_macros(data: bytes, seconds: float) -> Macros:
    """Ask olevba; raises ScanError if it is not installed, takes too long, or fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "authmilter.macro_reader",
        str(max(int(seconds), 1)),
        str(MEMORY),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(seconds):
            answer, _ = await process.communicate(data)
    except TimeoutError as error:
        raise ScanError(f"olevba gave no answer within {seconds:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == _NOT_INSTALLED:
        raise ScanError("oletools is not installed")
    if process.returncode:
        raise ScanError(f"olevba failed with status {process.returncode}")
    return _read(answer)


def _read(answer: bytes) -> Macros:
    try:
        autorun, suspicious = json.loads(answer[:MAX_ANSWER])
        return Macros(tuple(str(word) for word in autorun), tuple(str(word) for word in suspicious))
    except (ValueError, TypeError) as error:
        raise ScanError("olevba gave no answer that can be read") from error


# -- what runs in the process ------------------------------------------------------------------------------------------


def answer(data: bytes) -> tuple[list[str], list[str]]:
    """The keywords that olevba finds; raises whatever it raises."""
    from oletools.olevba import VBA_Parser

    parser = VBA_Parser("attachment", data=data)
    found: dict[str, dict[str, None]] = {"AutoExec": {}, "Suspicious": {}}
    if parser.detect_vba_macros():
        for sort, keyword, _ in parser.analyze_macros():
            if sort in found and len(found[sort]) < MAX_KEYWORDS:
                found[sort][str(keyword)[:MAX_LENGTH]] = None
    return list(found["AutoExec"]), list(found["Suspicious"])


def main(seconds: int, memory: int) -> None:
    """Document on standard input, keywords as JSON on standard output; the status says what went wrong."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    out = os.dup(1)
    os.dup2(2, 1)  # what oletools prints is no answer
    try:
        text = json.dumps(answer(sys.stdin.buffer.read()))
    except ImportError:
        os._exit(_NOT_INSTALLED)
    except BaseException:  # it must not leave a core, or wait for anything
        os._exit(1)
    os.write(out, text.encode())
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
