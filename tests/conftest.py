"""What holds for all tests."""

import os

from hypothesis import settings

# Machines that run tests are shared; a slow moment of theirs is no finding.  What gates a change must not depend on
# chance: there the cases are always the same, and new ones are looked for wherever else the tests run.
settings.register_profile("tests", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "tests")

# A service manager around the tests is none of the daemon's business.
for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "STATE_DIRECTORY"):
    os.environ.pop(name, None)
