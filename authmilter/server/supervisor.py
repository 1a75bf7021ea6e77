"""The supervisor: binds, forks, reaps, reloads.

It is single-threaded and handles no mail.  Signals only wake its loop; the handlers do nothing else.
"""

import contextlib
import gc
import grp
import logging
import os
import pwd
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from authmilter.check import all_checks
from authmilter.config import ini
from authmilter.config.endpoint import parse_listen
from authmilter.config.schema import Config
from authmilter.errors import AuthMilterError, ConfigError, StartError
from authmilter.files import Files, load_files
from authmilter.lists import titles
from authmilter.log import configure
from authmilter.metrics import Metrics, Shared, layout_for, list_names
from authmilter.server import exporter, notify, worker
from authmilter.server.board import Board
from authmilter.server.sockets import Listener, bind_all, mta_lines
from authmilter.server.state import check_store, make_state_directory, sqlite_path
from authmilter.state_directory import state_directory
from authmilter.store import preload

log = logging.getLogger("authmilter.supervisor")

BACKOFF_FIRST, BACKOFF_LAST = 0.1, 30.0
HEALTHY_AFTER = 10.0  # a worker that lived this long starts its back-off afresh
RELOAD_LIMIT = 10.0  # for all workers to take a configuration over
HEARTBEAT_LIMIT = 60.0  # a worker whose loop stood still this long is replaced
WANTED_FILES = 65536
GRACE = 5.0  # beyond drain_timeout, before what is left is killed
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass
class Child:
    """A place for a process, and the process in it."""

    name: str
    start: Callable[[socket.socket], NoReturn]
    slot: int
    pid: int = 0
    control: socket.socket | None = None
    started: float = 0.0
    respawn_at: float = 0.0
    backoff: float = field(default=BACKOFF_FIRST)


class Supervisor:
    """Runs the process group of one configuration file."""

    def __init__(self, config: Config, path: str | None, files: Files) -> None:
        self.config = config
        self.running = config  # what sockets, processes and user were made from: a reload does not change it
        self.path = path
        self.files = files
        self.workers = config.milter.workers or _cores()
        self.layout = layout_for(all_checks(), config)
        self.shared = Shared(self.workers + 1, self.layout)
        self.metrics = Metrics(self.shared, 0, self.layout)
        self.board = Board()
        self.state: Path | None = None
        self.listeners: list[Listener] = []
        self.children: list[Child] = []
        self.stopping = False
        self.generation = 0  # of the configuration in force: one more with every reload
        self._reload_until = 0.0  # workers have until then to take it over; 0 if all have

    # -- life ---------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until SIGTERM; returns the exit status.  Raises StartError if a socket is not to be had."""
        milter = self.config.milter
        # Before anybody can connect: whoever sees us serve may stop us, and gets status 0.
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _only_wake)
        _raise_file_limit()
        self.listeners = bind_all(
            milter.socket, mode=milter.socket_mode, group=milter.socket_group, backlog=milter.backlog
        )
        scrape = self._bind_metrics()
        self.state = sqlite_path(self.config.store.url)  # root's, also after we are another user
        if milter.user:
            os.environ.setdefault("STATE_DIRECTORY", str(state_directory()))  # the same for all that we start
        make_state_directory(self.config.store.url, milter.user, milter.group)
        preload(self.config.store)  # its modules may be where only root can read
        _drop_privileges(milter.user, milter.group)
        self._warn_of_unreadable_files()
        check_store(self.config.store, self.state, self.files.store_password)
        self.metrics.set("authmilter_config_last_reload_successful", 1.0)
        self.metrics.set("started", time.monotonic())
        sockets = [listener.sock for listener in self.listeners]
        if scrape is not None:
            self.children.append(
                Child(
                    "exporter",
                    lambda control: _never(exporter.main, scrape, control, self.shared, self.layout, self.board),
                    0,
                )
            )
        for slot in range(1, self.workers + 1):
            self.children.append(Child(f"worker {slot}", self._worker(slot, sockets), slot))
        gc.collect()
        gc.freeze()  # what is loaded now stays shared with the children
        for child in self.children:
            self._fork(child)
        _print_to_paste(mta_lines(self.listeners))
        log.info("serving on %s with %d workers", ", ".join(str(one.address) for one in self.listeners), self.workers)
        self._loop()
        return 0

    def _warn_of_unreadable_files(self) -> None:
        """What root could read at start may be out of reach for a reload."""
        config = self.config
        for path in filter(None, (self.path, *_named_files(config))):
            if not os.access(path, os.R_OK):
                log.warning(
                    "%s can't be read as user %s: SIGHUP won't notice its changes, or will fail; chown it",
                    path,
                    config.milter.user or os.getuid(),
                )

    def _bind_metrics(self) -> socket.socket | None:
        if not self.config.metrics.listen:
            return None
        host, port = parse_listen(self.config.metrics.listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(64)
        except OSError as error:
            sock.close()
            for listener in self.listeners:
                listener.close()
            raise StartError(f"[metrics] listen {self.config.metrics.listen}: {error.strerror or error}") from error
        return sock

    def _worker(self, slot: int, sockets: list[socket.socket]) -> Callable[[socket.socket], NoReturn]:
        def start(control: socket.socket) -> NoReturn:
            _never(
                worker.main,
                slot,
                self.config,
                self.path,
                self.files,
                self.state,
                self.shared,
                self.layout,
                self.board,
                sockets,
                control,
            )

        return start

    def _fork(self, child: Child) -> None:
        ours, theirs = socket.socketpair()
        child.started = time.monotonic()
        child.respawn_at = 0.0
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                ours.close()
                self._wake_read.close()
                self._wake_write.close()
                for other in self.children:
                    if other.control is not None:
                        other.control.close()
                child.start(theirs)
            finally:
                os._exit(70)
        theirs.close()
        child.pid, child.control = pid, ours
        if child.slot:
            self._set(child, "heartbeat", time.monotonic())
            self._set(child, "generation", self.generation)

    def _set(self, child: Child, gauge: str, value: float) -> None:
        self.shared.slot(child.slot)[self.layout.cells[gauge, ()]] = value

    # -- the loop -----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        ready = False
        interval = notify.watchdog_interval()
        next_ping = 0.0
        deadline = float("inf")
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            while any(child.pid for child in self.children) or not self.stopping:
                selector.select(self._wait(ready, interval, deadline))
                now = time.monotonic()
                for number in self._signals():
                    if number in (signal.SIGTERM, signal.SIGINT):
                        if self.stopping:
                            deadline = 0.0  # asked twice: at once
                        else:
                            deadline = now + self.config.milter.drain_timeout + GRACE
                            self._stop()
                    elif number == signal.SIGHUP and not self.stopping:
                        self._reload()
                self._reap(now)
                if self.stopping:
                    self._end_exporter_last()
                    if now >= deadline:
                        self._kill_all()
                        deadline = now + GRACE  # they only have to be reaped
                    continue
                for child in self.children:
                    if not child.pid and now >= child.respawn_at:
                        self._fork(child)
                self._replace_stuck(now)
                if self._reload_until and (now >= self._reload_until or self._all_reloaded()):
                    self._reloaded()
                if not ready and self.shared.sum(self.layout.cells["accepting", ()]) >= self.workers:
                    ready = True
                    notify.notify("READY=1", f"STATUS=serving with {self.workers} workers")
                if interval and now >= next_ping:
                    notify.notify("WATCHDOG=1")
                    next_ping = now + interval
        for listener in self.listeners:
            listener.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # what comes now asks for what is done: it must not change the status
        log.info("stopped")

    def _wait(self, ready: bool, interval: float, deadline: float) -> float:
        """Seconds until something is due."""
        now = time.monotonic()
        due = [1.0 if ready and not self._reload_until else 0.02]
        due += [child.respawn_at - now for child in self.children if not child.pid and not self.stopping]
        if interval:
            due.append(interval)
        if self.stopping:
            due.append(deadline - now)
        return max(0.0, min(due))

    def _signals(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return self._wake_read.recv(4096)
        return b""

    def _reap(self, now: float) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = next((c for c in self.children if c.pid == pid), None)
            if child is None:
                continue
            child.pid = 0
            if child.control is not None:
                child.control.close()
                child.control = None
            if child.slot:
                self._set(child, "accepting", 0.0)
                self._set(child, "authmilter_connections_active", 0.0)
            if self.stopping:
                continue
            if now - child.started >= HEALTHY_AFTER:
                child.backoff = BACKOFF_FIRST
            child.respawn_at = now + child.backoff
            log.error("%s (pid %d) %s; restart in %.1f s", child.name, pid, _cause(status), child.backoff)
            child.backoff = min(child.backoff * 2, BACKOFF_LAST)
            if child.slot:
                self.metrics.worker_restarted()

    def _replace_stuck(self, now: float) -> None:
        heartbeat = self.layout.cells["heartbeat", ()]
        for child in self.children:
            if child.slot and child.pid and now - self.shared.slot(child.slot)[heartbeat] > HEARTBEAT_LIMIT:
                log.error("%s (pid %d) stood still for %.0f s: killed", child.name, child.pid, HEARTBEAT_LIMIT)
                self._set(child, "heartbeat", now)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def _stop(self) -> None:
        log.info("stopping: open connections have %.0f s", self.config.milter.drain_timeout)
        notify.notify("STOPPING=1", "STATUS=draining")
        self.stopping = True
        for child in self.children:
            if child.control is not None and child.slot:
                child.control.close()  # end of file means drain
                child.control = None
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                # A listening socket stays open as long as one process has it, and clients would wait in its backlog:
                # this ends it for all.
                listener.sock.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _end_exporter_last(self) -> None:
        """The exporter answers until the workers are gone: their last messages are still counted."""
        if not any(child.pid for child in self.children if child.slot):
            for child in self.children:
                if child.control is not None:
                    child.control.close()
                    child.control = None

    def _kill_all(self) -> None:
        for child in self.children:
            if child.pid:
                log.warning("%s (pid %d) is not waited for any longer: killed", child.name, child.pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    # -- reload -------------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Read and check the file here; only a good one goes to the workers, as the very text that was checked."""
        notify.reloading()
        try:
            text = _read(self.path)
            config = ini.load(self.path, text)
            files = load_files(config)
        except AuthMilterError as error:
            problems = error.problems if isinstance(error, ConfigError) else (str(error),)
            for problem in problems:
                log.error("reload: %s", problem)
            log.error("reload failed: the configuration stays as it was")
            self.metrics.reloaded(success=False)
            notify.notify("READY=1", f"STATUS=reload failed, the old configuration is in force: {problems[0]}")
            return
        for change in ini.changed_needing_restart(self.running, config):
            log.warning("reload: a change of %s takes a restart", change)
        if set(list_names(config)) - set(list_names(self.running)):
            log.warning("reload: metrics and status call DNS lists that are new `other` until the next start")
        self.config, self.files = config, files
        configure(config.log.format, config.log.level)
        if self._reload_until:
            self._reloaded()  # a signal came while workers were still busy with the one before
        self.generation += 1
        self._reload_until = time.monotonic() + RELOAD_LIMIT
        octets = text.encode()
        for child in self.children:
            if child.slot and child.control is not None:
                try:
                    child.control.sendall(worker.FRAME.pack(self.generation, len(octets)) + octets)
                except OSError as error:
                    log.error("%s can't be told of the reload: %s", child.name, error)

    def _all_reloaded(self) -> bool:
        cell = self.layout.cells["generation", ()]
        return all(
            self.shared.slot(child.slot)[cell] >= self.generation for child in self.children if child.slot and child.pid
        )

    def _reloaded(self) -> None:
        """Every worker has the new configuration: only now it counts as reloaded."""
        if not self._all_reloaded():
            log.warning("not every worker took the new configuration within %.0f s", RELOAD_LIMIT)
        self._reload_until = 0.0
        self.metrics.reloaded(success=True)
        log.info("reloaded")
        notify.notify("READY=1", f"STATUS=serving with {self.workers} workers")


def _named_files(config: Config) -> list[str]:
    """Every file that the configuration names to be read; "" where it names none."""
    paths: list[str] = [config.submission.map_file, config.arc.seal_key_file]
    for sign in config.sign.values():
        paths += [sign.key_file, sign.ed25519_key_file]
    paths += [section.key_file for _, _, section in titles(config)]
    paths += [getattr(options, "password_file", "") for options in config.checks.values()]
    return [*paths, config.store.password_file, config.store.ca_file]


def _read(path: str | None) -> str:
    if path is None:
        return ""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: can't be read: {error}"]) from error


def _print_to_paste(text: str) -> None:
    """On standard output; where that can't be written, mail is served all the same."""
    try:
        print(text, flush=True)  # noqa: T201
    except OSError as error:
        log.warning("standard output can't be written: %s", error.strerror)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered


def _only_wake(number: int, frame: Any) -> None:
    """The wake-up descriptor has the number; the loop does the work."""


def _never(function: Callable[..., None], *args: Any) -> NoReturn:
    function(*args)
    os._exit(70)  # both end by themselves


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"


def _raise_file_limit() -> None:
    """A connection is one descriptor, and so is every question to the DNS: the usual 1024 are soon used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _drop_privileges(user: str, group: str) -> None:
    """Become `user` and `group`, for good, when started as root."""
    if os.geteuid() != 0 or not (user or group):
        return
    try:
        gid = grp.getgrnam(group).gr_gid if group else pwd.getpwnam(user).pw_gid
        if user:
            os.initgroups(user, gid)
        else:
            os.setgroups([gid])
        os.setgid(gid)
        if user:
            os.setuid(pwd.getpwnam(user).pw_uid)
    except (KeyError, OSError) as error:
        raise StartError(f"can't become user {user!r} group {group!r}: {error}") from error
