"""Listening sockets: bound once by the supervisor, shared by all workers."""

import contextlib
import grp
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from authmilter.config.endpoint import SocketAddress, parse_socket
from authmilter.errors import StartError


@dataclass(frozen=True)
class Listener:
    """A bound and listening, non-blocking socket and the address it stands for."""

    address: SocketAddress
    sock: socket.socket

    def close(self) -> None:
        """Stop listening, and take a unix socket's path away."""
        self.sock.close()
        if self.address.family == "unix":
            with contextlib.suppress(OSError):  # after dropping root the folder may no longer be ours
                os.unlink(self.address.path)


def bind_all(names: Sequence[str], *, mode: int, group: str, backlog: int) -> list[Listener]:
    """Bind every socket of the configuration; raises StartError, with nothing left bound, if one is not to be had."""
    bound: list[Listener] = []
    try:
        for name in names:
            address = parse_socket(name)
            sock = _unix(address.path, mode, group) if address.family == "unix" else _inet(address)
            bound.append(Listener(address, sock))
            sock.listen(backlog)
            # Whoever loses the race for a connection must get EAGAIN, not sleep in accept().
            sock.setblocking(False)
    except OSError as error:
        for listener in bound:
            listener.close()
        raise StartError(f"{name}: {error.strerror or error}") from error
    except StartError:
        for listener in bound:
            listener.close()
        raise
    return bound


def _inet(address: SocketAddress) -> socket.socket:
    family = socket.AF_INET6 if address.family == "inet6" else socket.AF_INET
    host = address.host or ("::" if address.family == "inet6" else "0.0.0.0")  # noqa: S104  asked for by name
    try:
        target = socket.getaddrinfo(host, address.port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
    except socket.gaierror as error:
        raise StartError(f"{address}: {error.strerror}") from error
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it: without it libmilter's two small writes cost 40 ms a message.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(target)
    except OSError:
        sock.close()
        raise
    return sock


def _unix(path: str, mode: int, group: str) -> socket.socket:
    """Bound under a hidden name and renamed: it appears with its mode and group, and a stale one is replaced."""
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        raise StartError(f"unix:{path}: folder {folder} does not exist")
    if os.path.lexists(path) and not _is_stale(path):
        raise StartError(f"unix:{path}: another process listens there, or it is no socket")
    hidden = os.path.join(folder, f".{name[:40]}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(hidden)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o177)
        try:
            sock.bind(hidden)
        finally:
            os.umask(before)
        if group:
            _give(hidden, path, group)
        os.chmod(hidden, mode)
        os.rename(hidden, path)
    except (OSError, KeyError, StartError) as error:
        sock.close()
        with contextlib.suppress(OSError):
            os.unlink(hidden)
        if isinstance(error, KeyError):
            raise StartError(f"unix:{path}: there is no group {group!r}") from error
        raise
    return sock


def _give(hidden: str, path: str, group: str) -> None:
    try:
        os.chown(hidden, -1, grp.getgrnam(group).gr_gid)
    except PermissionError as error:
        raise StartError(
            f"unix:{path}: can't be given to the group {group} of [milter] socket_group, to which this user does not belong; "
            "start as root, or leave the option out and let the folder be of that group and setgid"
        ) from error


def _is_stale(path: str) -> bool:
    """Is it a socket that nobody listens on?"""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def mta_lines(listeners: Sequence[Listener]) -> str:
    """What to paste into main.cf of Postfix and the .mc file of Sendmail.

    Both say the same of a daemon that can't be asked: the mail waits at its sender (F=T, tempfail).  With accept, mail of
    others would come in unexamined, and one's own go out unsigned, without anybody hearing of it.
    """
    postfix, sendmail = [], []
    for i, listener in enumerate(listeners):
        address = listener.address
        if address.family == "unix":
            # smtpd runs in a chroot by default, where the path begins at the queue directory
            path = address.path.removeprefix("/var/spool/postfix/")
            postfix.append(f"unix:{path}")
            sendmail.append(f"unix:{address.path}")
        else:
            port = listener.sock.getsockname()[1]
            host = address.host or "localhost"
            postfix.append(f"inet:[{host}]:{port}" if ":" in host else f"inet:{host}:{port}")
            sendmail.append(f"{address.family}:{port}@{host}")
        sendmail[i] = f"INPUT_MAIL_FILTER(`authmilter{i or ''}', `S={sendmail[i]}, F=T, T=C:30s;S:30s;R:90s;E:5m')dnl"
    return (
        "Postfix, in main.cf:\n"
        f"    smtpd_milters = {', '.join(postfix)}\n"
        "    non_smtpd_milters = $smtpd_milters\n"
        "    milter_default_action = tempfail\n"
        "    internal_mail_filter_classes = bounce\n"
        f"Sendmail, in the .mc file:\n    {sendmail[0] if sendmail else ''}\n"
    )
