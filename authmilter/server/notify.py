"""The readiness protocol of systemd (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names."""

import os
import socket
import time


def notify(*lines: str) -> None:
    """Send ``READY=1``, ``STATUS=...`` and the like; does nothing where nobody asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(1.0)
            sock.sendto("\n".join(lines).encode(), address)
    except OSError:
        pass  # the service manager went away: serving mail matters more


def reloading() -> None:
    """RELOADING=1 needs the time of the monotonic clock with it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval() -> float:
    """Seconds between WATCHDOG=1 pings, half of what systemd grants; 0 if it watches somebody else or nobody."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    except ValueError:
        return 0.0
