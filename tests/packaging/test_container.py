"""The container file and its configuration, as far as they can be judged without a registry of images."""

import re
import shlex

from authmilter.config import ini
from tests.shared import ROOT

FILE = ROOT / "packaging/Containerfile"
INI = ROOT / "packaging/container.ini"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", FILE.read_text()))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def test_what_it_copies_is_in_the_checkout() -> None:
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            for source in shlex.split(rest)[:-1]:
                assert (ROOT / source).exists()


def test_it_does_not_run_as_root() -> None:
    last = [index for index, (word, _) in enumerate(instructions()) if word == "FROM"][-1]
    final = instructions()[last:]
    assert ("USER", "authmilter") in final
    assert [word for word, _ in final].index("USER") < [word for word, _ in final].index("ENTRYPOINT")


def test_its_health_check_asks_where_the_daemon_listens() -> None:
    loaded = ini.load_with_origins(str(INI), INI.read_text())
    # Who gets to the container is for the host to say, as the file tells.
    assert [warning for warning in loaded.warnings if "0.0.0.0" not in warning] == []
    port = loaded.config.metrics.listen.rpartition(":")[2]
    (check,) = (rest for word, rest in instructions() if word == "HEALTHCHECK")
    assert f"http://127.0.0.1:{port}/readyz" in check
    (exposed,) = (rest for word, rest in instructions() if word == "EXPOSE")
    assert port in exposed.split()
    assert loaded.config.milter.socket[0].partition("@")[0].removeprefix("inet:") in exposed.split()
