"""What holds for all tests."""

import os

from hypothesis import settings

# Machines that run tests are shared; a slow moment of theirs is no finding.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# A service manager around the tests is none of the daemon's business.
for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "STATE_DIRECTORY"):
    os.environ.pop(name, None)
