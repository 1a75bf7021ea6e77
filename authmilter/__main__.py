"""`python -m authmilter` is the command `authmilter`."""

import sys

from authmilter.cli.__main__ import main

sys.exit(main())
