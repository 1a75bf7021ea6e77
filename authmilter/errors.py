"""The errors of this project.

::

    AuthMilterError
    ├── ConfigError          the configuration can't be used; carries every problem found
    ├── StartError           a socket or store is not to be had
    └── TempError            something outside failed for now: never the message's fault
        ├── DnsTempError     time-out, SERVFAIL, REFUSED, no server reached
        │   └── DnsBusyError     not asked, for too many questions are under way
        ├── StoreError       the state store can't answer
        └── ScanError        a virus scanner or another spam filter can't answer
"""

from collections.abc import Sequence


class AuthMilterError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(AuthMilterError):
    """The configuration can't be used.

    `problems` are lines as shown to the administrator: ``FILE:LINE: [section] message``.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class StartError(AuthMilterError):
    """A socket or store that `run` needs is not to be had (exit status 69)."""


class TempError(AuthMilterError):
    """Something outside failed for now; the result is a temperror, never a fail."""


class DnsTempError(TempError):
    """A DNS question got no answer: time-out, SERVFAIL, REFUSED or a broken packet."""


class DnsBusyError(DnsTempError):
    """It was not asked: too many questions are under way."""


class StoreError(TempError):
    """The state store did not answer."""


class ScanError(TempError):
    """A virus scanner or another spam filter did not answer, or not in a way that can be read."""
