"""The commands, one file per verb, and their exit statuses beyond 0."""

EX_USAGE = 64  # these are those of sysexits.h
EX_UNAVAILABLE = 69
EX_IOERR = 74
EX_CONFIG = 78
EX_PIPE = 141  # what a shell reports for SIGPIPE
EX_INTERRUPT = 130  # and for SIGINT
