"""Files that only their owner may read."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from authmilter import secret_file
from authmilter.store import load_password


def test_what_was_read_before_root_was_given_up_is_still_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text("hunter2\n")
    assert load_password(str(path)) == "hunter2"

    def refused(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with caplog.at_level(logging.WARNING, logger="authmilter.secret_file"):
        assert load_password(str(path)) == "hunter2"
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} can't be read as this user: the password that was read at start stays in use"
    ]
    with pytest.raises(ValueError, match="Permission denied"):
        secret_file.read(str(tmp_path / "another"), "key", 100)


def test_no_more_than_wanted_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(b"x" * 1000)
    assert secret_file.read(str(path), "key", 100) == b"x" * 100
