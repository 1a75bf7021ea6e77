"""What README and the page on policy show is what authmilter reads."""

import re

import pytest

from authmilter.cli.__main__ import VERBS
from authmilter.config import ini
from tests.shared import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
# Indented lines, with empty ones between them, of which the first is the head of a section.
BLOCKS = [
    block
    for text in (README, (ROOT / "contrib/docs/policy.md").read_text(encoding="utf-8"))
    for block in re.findall(r"(?m)^ {4,7}\[[a-z_]+[^]\n]*\].*\n(?:(?: {4,7}\S.*| *)\n)*", text)
]


@pytest.mark.parametrize("block", BLOCKS, ids=[block.split("]")[0].strip(" [") for block in BLOCKS])
def test_the_configurations_load_without_a_warning(block: str) -> None:
    text = "\n".join(line.strip() for line in block.splitlines())
    assert ini.load_with_origins(None, text, check_files=False).warnings == ()


def test_there_are_configurations_and_every_command_is_named() -> None:
    assert len(BLOCKS) >= 4
    assert set(VERBS) <= set(re.findall(r"`authmilter ([a-z-]+)", README))
