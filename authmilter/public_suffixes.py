"""Domains below which others register, after the list that publicsuffixlist ships: also those of whoever hosts pages."""

from functools import cache, lru_cache
from typing import Any


@cache
def _suffixes() -> Any:
    """It takes 65 ms to read, once, and is read where it is asked for alone."""
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def load_suffixes() -> None:
    """Read the list, so that nobody has to wait for it later."""
    _suffixes()


@lru_cache(maxsize=4096)
def registered_domain(domain: str) -> str:
    """The part of a lower-case domain in A-labels that somebody registered: a label and a public suffix, such as
    example.co.uk or example.github.io.  The domain itself if it is a public suffix."""
    found: str | None = _suffixes().privatesuffix(domain)
    return found or domain
