"""Prints what the dearest attacks cost."""

import pytest

from tests.attacks.site import COSTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """CPU time of the messages that cost most, next to a plain one."""
    if COSTS:
        terminalreporter.section("CPU of hostile messages")
        dearest = sorted(COSTS.items(), key=lambda cost: -cost[1])
        for title, seconds in dearest[:20]:
            terminalreporter.write_line(f"{seconds * 1000:8.1f} ms  {title}")
        median = dearest[len(dearest) // 2][1]
        terminalreporter.write_line(f"{median * 1000:8.1f} ms  median of all {len(dearest)}")
