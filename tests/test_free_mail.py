"""Where anybody gets a mailbox for nothing."""

import pytest

from authmilter.free_mail import is_free


@pytest.mark.parametrize(
    ("domain", "free"),
    [
        ("gmail.com", True),
        ("hotmail.fr", True),
        ("mail.yahoo.co.jp", True),
        ("163.com", True),
        ("example.org", False),
        ("notgmail.com", False),
        ("gmail.com.example.org", False),
        ("", False),
    ],
)
def test_free_mailboxes(domain: str, free: bool) -> None:
    assert is_free(domain) is free
