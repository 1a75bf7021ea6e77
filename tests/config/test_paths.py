"""Files that a configuration names."""

from authmilter.config import ini
from authmilter.config.ini import NAMED_SECTIONS, SECTIONS, check_sections
from authmilter.config.option import options_of
from authmilter.config.paths import named_files, with_files

TEXT = """
[arc]
seal_key_file = /a/seal
[sign example.org]
selector = s
key_file = /a/rsa
ed25519_selector = t
ed25519_key_file = /a/ed
[sign example.net]
selector = s
key_file = /a/rsa
[submission]
map_file = map
[dnsbl zen]
zone = zen.example
key_file = /a/zen
[store]
password_file = /a/password
ca_file = /a/ca
[rspamd]
url = http://127.0.0.1:11333/checkv2
password_file = /a/controller
[classifier]
table = /b/table
"""


def test_every_file_that_an_option_names_but_not_what_the_daemon_writes() -> None:
    config = ini.load(None, TEXT, check_files=False)
    assert {(file.section, file.option, file.path) for file in named_files(config)} == {
        ("arc", "seal_key_file", "/a/seal"),
        ("sign example.org", "key_file", "/a/rsa"),
        ("sign example.org", "ed25519_key_file", "/a/ed"),
        ("sign example.net", "key_file", "/a/rsa"),
        ("submission", "map_file", "map"),
        ("dnsbl zen", "key_file", "/a/zen"),
        ("store", "password_file", "/a/password"),
        ("store", "ca_file", "/a/ca"),
        ("rspamd", "password_file", "/a/controller"),
    }


def test_a_new_option_that_names_a_file_has_to_be_thought_of() -> None:
    """Is it in a backup, as these are, or written by the daemon?  Then it belongs into the list in paths.py."""
    declared = [*SECTIONS.values(), *(named.declared for named in NAMED_SECTIONS.values()), *check_sections().values()]
    names = {name for section in declared for name, option in options_of(section).items() if option.kind.form == "path"}
    assert names == {
        "seal_key_file", "key_file", "ed25519_key_file", "map_file", "password_file", "ca_file", "table",
    }  # fmt: skip


def test_other_places_leave_all_else_as_it_is() -> None:
    config = ini.load(None, TEXT, check_files=False)
    moved = with_files(config, lambda path: f"/new/{path.strip('/')}")
    assert {file.path for file in named_files(moved)} == {
        f"/new/{file.path.strip('/')}" for file in named_files(config)
    }
    back = {f"/new/{file.path.strip('/')}": file.path for file in named_files(config)}
    assert with_files(moved, back.__getitem__) == config
    assert with_files(config, lambda path: path) == config


def test_nothing_is_named_by_default() -> None:
    assert list(named_files(ini.load(None, ""))) == []
