"""Imports point one way, and the world stays outside of the core."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "authmilter"

# Each may import itself and what stands before it.
ORDER = [
    "errors",
    "evidence",
    "verdict",
    "networks",
    "model",
    "interfaces",
    "config.option",
    "config.schema",
    "mime_fields",
    "addresses",
    "fitted",
    "check",
]
CORE = [
    *ORDER,
    "html_text",
    "mime",
    "header_text",
    "urls",
    "public_suffixes",
    "coin_addresses",
    "confusables",
    "filetype",
    "sevenzip",
    "rar",
    "zip_files",
    "archives",
    "office",
    "pdf",
    "macro_reader",
    "scanners",
    "state_directory",
    "stored_mail",
    "text_words",
    "classifier.features",
    "classifier.spool",
    "classifier.table",
    "classifier.training",
    "spaces",
    "eager",
    "lists",
    "clients",
    "identities",
    "words",
    "checks",
    "auth",
    "pipeline",
    "policy",
    "replies",
    "submission",
    "files",
    "log",
    "session",
]
WORLD = {"Milter", "milter", "aiodns", "sqlite3", "redis", "prometheus_client", "uvloop"}
ORACLES = {"spf", "dkim", "authres"}


def imports(path: Path) -> set[str]:
    """Modules that a file names, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(module: str) -> list[Path]:
    path = ROOT / module.replace(".", "/")
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_stands_before_it(module: str) -> None:
    later = {f"authmilter.{name}" for name in CORE[CORE.index(module) + 1 :]}
    for path in files(module):
        assert not imports(path) & later, path


@pytest.mark.parametrize("module", CORE)
def test_the_core_does_not_know_the_world(module: str) -> None:
    for path in files(module):
        tops = {name.partition(".")[0] for name in imports(path)}
        assert not tops & WORLD, path
        assert not imports(path) & {
            "authmilter.resolver",
            "authmilter.dns_client",
            "authmilter.metrics",
            "authmilter.server",
        } or path.name == ("second_opinion.py"), path


def test_the_reference_implementations_are_imported_under_auth_alone() -> None:
    for path in ROOT.rglob("*.py"):
        if path.parent.name != "auth":
            tops = {name.partition(".")[0] for name in imports(path)}
            assert not tops & ORACLES, path
