"""`authmilter run`: the daemon in the foreground."""

import argparse
import logging

EX_UNAVAILABLE = 69
EX_CONFIG = 78


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own: everything is in the configuration file."""


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    from authmilter.auth.signing import Signer

    from authmilter.config import ini
    from authmilter.errors import ConfigError, StartError
    from authmilter.log import configure
    from authmilter.server.supervisor import Supervisor
    from authmilter.submission import load as load_senders

    configure("text", "info")
    log = logging.getLogger("authmilter")
    try:
        path = ini.find(args.config)
        config = ini.load(path)
        configure(config.log.format, config.log.level)
        return Supervisor(config, path, Signer.load(config.sign), load_senders(config)).run()
    except ConfigError as error:
        for problem in error.problems:
            log.error("%s", problem)
        return EX_CONFIG
    except StartError as error:
        log.error("can't start: %s", error)
        return EX_UNAVAILABLE
