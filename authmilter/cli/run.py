"""`authmilter run`: the daemon in the foreground."""

import argparse
import logging

from authmilter.cli import EX_CONFIG, EX_UNAVAILABLE
from authmilter.config import ini
from authmilter.errors import ConfigError, StartError
from authmilter.files import load_files
from authmilter.log import configure, log_uncaught
from authmilter.server.supervisor import Supervisor

log = logging.getLogger("authmilter")


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own: everything is in the configuration file."""


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM.  From here on everything is logged, errors of the configuration too."""
    configure("text", "info")
    log_uncaught()
    try:
        path = ini.find(args.config)
        loaded = ini.load_with_origins(path)
        config = loaded.config
        configure(config.log.format, config.log.level)
        for warning in loaded.warnings:
            log.warning("%s", warning)
        return Supervisor(config, path, load_files(config)).run()
    except ConfigError as error:
        for problem in error.problems:
            log.error("%s", problem)
        return EX_CONFIG
    except StartError as error:
        log.error("can't start: %s", error)
        return EX_UNAVAILABLE
