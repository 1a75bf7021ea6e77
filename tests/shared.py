"""Conformance suites and samples that live beside the checkout and are too large, or not ours, to be kept in it.

They are looked for in ``$AUTHMILTER_SHARED/data`` and in ``../shared/data`` next to the root of the checkout.  A test
that needs one skips, with the reason, where the folder is missing.
"""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared_folder() -> Path:
    """The folder that holds ``data``; it need not exist."""
    return Path(os.environ.get("AUTHMILTER_SHARED") or ROOT.parent / "shared")


def shared(name: str) -> Path:
    """The path of a data file or folder, such as ``spf-suites/rfc7208-tests.yml``.

    Skips the calling test, or the calling module when called at its top level, where there is no such file.
    """
    return _found(Path("data") / name)


def facts(name: str) -> Path:
    """The path of a text that stands beside ``data``, such as ``standards.md``; skips like `shared`."""
    return _found(Path(name))


def _found(name: Path) -> Path:
    path = shared_folder() / name
    if not path.exists():
        # Why: the suites are too large, or under licences too different, to be kept in this repository.
        pytest.skip(f"no {name} in {shared_folder()} (set AUTHMILTER_SHARED)", allow_module_level=True)
    return path
