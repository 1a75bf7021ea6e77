"""Which kinds of state there are."""

import ast
import sys
from pathlib import Path
from types import ModuleType

import pytest

from authmilter.check import all_checks
from authmilter.config.schema import Config
from authmilter.interfaces import Space
from authmilter.spaces import keeps_state, spaces

CHECKS = Path(__file__).parent.parent / "authmilter" / "checks"


def test_spaces_are_found_by_name_and_in_order() -> None:
    found = spaces()
    assert {"greylist", "reputation_ham", "reputation_spam"} <= set(found)
    assert list(found) == sorted(found)
    assert all(name == space.name for name, space in found.items())


def test_every_space_of_a_check_is_found() -> None:
    declared = {
        node.args[0].value
        for path in CHECKS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Space"
        and isinstance(node.args[0], ast.Constant)
    }
    assert set(spaces()) == declared


def test_every_space_says_what_it_holds() -> None:
    assert [name for name, space in spaces().items() if not space.help] == []


def test_what_speaks_for_somebody_is_not_released_nor_that_its_network_is_full() -> None:
    assert {name for name, space in spaces().items() if space.release is None} == {
        "correspondents", "greylist_clients", "greylist_new", "reputation_ham",
    }  # fmt: skip


def test_every_space_whose_keys_may_be_hashes_tells_how_they_are_made() -> None:
    assert [name for name, space in spaces().items() if bool(space.keys) is not space.personal] == []


def test_two_checks_can_not_keep_the_same_space(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("authmilter.checks.zz_another")
    vars(module)["MINE"] = Space("greylist", personal=True)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(ValueError, match="two checks keep a space called greylist"):
        spaces()


def test_a_check_may_read_what_another_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    before = spaces()
    module = ModuleType("authmilter.checks.zz_another")
    vars(module)["THEIRS"] = before["greylist"]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert spaces() == before


def test_without_a_section_for_it_no_check_that_is_on_keeps_state() -> None:
    config = Config()
    assert {check.name for check in all_checks() if keeps_state(check)} >= {"greylist", "outbound_limits", "reputation"}
    assert not [check.name for check in all_checks() if keeps_state(check) and check.enabled(config)]
