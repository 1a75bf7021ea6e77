"""What is measured and what it needs around it: DNS servers, the filters, the load generator.

All of it runs in private network, mount and process namespaces: no port or file of the host is in its way, nothing can
leave the machine, and whatever is left over ends with the namespace.
"""

import contextlib
import functools
import importlib.util
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import Pool
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.bench.answers import WrongAnswerError
from tests.bench.corpus import SIZES, bulk_row, generate_bulk, generate_hostile, index, key_record, new_key, write_index
from tests.shared import shared_folder

HERE = Path(__file__).parent
VAR = HERE / "var"
CORPUS = VAR / "var" / "corpus"
OWN = VAR / "own"  # workload of ours
FAST_DNS, SLOW_DNS, BULK_DNS = "127.0.53.1", "127.0.53.2", "127.0.53.3"
AUTHSERV_ID = "mx.bench.test"
SPAWN_LIMIT = 60.0
# What a peer needs, by what its name has in it.
PROGRAMS = {
    "opendkim": "opendkim",
    "opendmarc": "opendmarc",
    "pyspf": "pyspf-milter",
    "dkimpy": "dkimpy-milter",
    "rspamd": "rspamd",
    "spamassassin": "spamd",
    "mailauth": "node",
}


def progress(text: str) -> None:
    """Tell whoever waits; results go to standard output, this does not."""
    print(text, file=sys.stderr, flush=True)


# -- build ------------------------------------------------------------------------------------------------------------


def build() -> None:
    """Copy the shared bench here, compile the programs and generate the workload: each once."""
    source = shared_folder() / "bench"
    if not source.is_dir():
        raise SystemExit(f"{source} is not there: set AUTHMILTER_SHARED to the folder that has bench/milterload.c")
    VAR.mkdir(exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and not _newer(VAR / path.name, path):
            shutil.copyfile(path, VAR / path.name)
    wrap = ("-Wl,--wrap=connect,--wrap=close", "-lpthread")
    _compile("milterload", [VAR / "milterload.c", HERE / "pace.c"], wrap)
    _compile("dnsdelay", [VAR / "dnsdelay.c"], ("-lpthread",))
    _compile("bulkdns", [HERE / "bulkdns.c"])
    if not (CORPUS / "dns.conf").exists():
        progress("generating the workload")
        subprocess.run([sys.executable, "gen.py"], cwd=VAR, check=True, stdout=sys.stderr)
    _split_sizes()


def _newer(made: Path, source: Path) -> bool:
    return made.exists() and made.stat().st_mtime >= source.stat().st_mtime


def _compile(name: str, sources: Sequence[Path], libraries: Sequence[str] = ()) -> None:
    if not all(_newer(VAR / name, source) for source in sources):
        progress(f"compiling {name}")
        subprocess.run(["gcc", "-O2", "-Wall", "-o", VAR / name, *sources, *libraries], check=True)


def _split_sizes() -> None:
    """Indexes of the warm messages by size, beside the index of all."""
    rows: dict[str, list[str]] = {size: [] for size in SIZES}
    for row in index(CORPUS):
        octets = (CORPUS / "warm" / row[0]).stat().st_size
        rows[next(size for size, (limit, _) in SIZES.items() if octets < limit)].append("\t".join(row))
    for size, those in rows.items():
        write_index(size_index(size), those)


def size_index(size: str) -> Path:
    """The index of the warm messages of that size."""
    return CORPUS / "warm" / f"index-{size.replace(' ', '').lower()}.tsv"


@functools.cache
def bulk_key() -> RSAPrivateKey:
    """The DKIM key of all domains of bulkdns."""
    key: RSAPrivateKey = _kept_key(OWN / "bulk.pem", new_key)
    return key


def ed25519_key() -> tuple[Path, Ed25519PrivateKey]:
    """A second signing key, and its file."""
    path = OWN / "ed25519.pem"
    return path, _kept_key(path, Ed25519PrivateKey.generate)


def _kept_key(path: Path, make: Any) -> Any:
    OWN.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        octets = make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.touch(mode=0o600)
        path.write_bytes(octets)
    return load_pem_private_key(path.read_bytes(), None)


def signing_domain() -> tuple[str, str, Path]:
    """Domain, selector and key file of the mail that is signed."""
    domain, selector = (CORPUS / "sign" / "domain").read_text().split()
    key = CORPUS / "keys" / "rsa.pem"
    key.chmod(0o600)
    return domain, selector, key


def bulk(domains: int) -> Path:
    """The folder of that many domains' messages; makes what is missing of them."""
    folder = OWN / "bulk"
    step = 2500
    todo = [
        (folder, range(start, min(start + step, domains)), bulk_key())
        for start in range(0, domains, step)
        if not (folder / f"g{min(start + step, domains) - 1:06d}.com.eml").exists()
    ]
    if todo:
        progress(f"generating messages of {domains} domains")
        with Pool(initializer=signal.signal, initargs=(signal.SIGTERM, signal.SIG_DFL)) as pool:
            pool.starmap(generate_bulk_of, [(folder, numbers) for _, numbers, _ in todo])
    return folder


def generate_bulk_of(folder: Path, numbers: range) -> None:
    """In a process of its own."""
    generate_bulk(folder, numbers, bulk_key())


def bulk_index(name: str, numbers: Sequence[int]) -> Path:
    """An index of the messages of these domains, in that order."""
    path = OWN / "bulk" / f"{name}.tsv"
    write_index(path, map(bulk_row, numbers))
    return path


def hostile(kind: str) -> Path:
    """The index of one of the kinds of `generate_hostile`."""
    folder = OWN / "hostile"
    if not (folder / "fields.tsv").exists():
        progress("generating hostile messages")
        domain, selector, key = signing_domain()
        rsa = load_pem_private_key(key.read_bytes(), None)
        assert isinstance(rsa, RSAPrivateKey)
        generate_hostile(folder, domain, selector, rsa)
    return folder / f"{kind}.tsv"


# -- namespaces and DNS -----------------------------------------------------------------------------------------------


def enter_namespaces() -> None:
    """Run this program over in namespaces of its own, and end as that ends, unless it is there already."""
    if os.environ.get("AUTHMILTER_BENCH_NAMESPACES"):
        return
    if os.geteuid() != 0:
        raise SystemExit("network namespaces take root; `python -m tests.bench.session` measures in process without")
    missing = [program for program in ("unshare", "setpriv", "ip", "unbound", "gcc") if not shutil.which(program)]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)} (Debian: util-linux iproute2 unbound gcc)")
    # The process namespace goes with its first process, and that one with us: nothing is left over, whatever happens.
    die = ["setpriv", "--pdeathsig", "KILL"]
    unshare = ["unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    environment = {**os.environ, "AUTHMILTER_BENCH_NAMESPACES": "1"}
    process = subprocess.Popen([*die, *unshare, *sys.orig_argv], env=environment)

    def pass_on(number: int, frame: FrameType | None) -> None:
        """Let it stop everything in order; unshare itself hears no SIGTERM."""
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all of us
    raise SystemExit(process.wait())


def raise_file_limit() -> None:
    """Thousands of connections take as many descriptors, here and in the load generator."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def load_shared_runner(scratch: Path) -> Any:
    """The module bench.py of the shared bench, for its DNS set-up and for the configurations of the peers."""
    os.environ["BENCH_RUN"] = str(scratch)
    os.environ["BENCH_NS"] = "1"  # we are in namespaces already
    spec = importlib.util.spec_from_file_location("shared_bench", VAR / "bench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    arguments, sys.argv = sys.argv, ["bench.py", "list"]  # it is a program, and runs when it is loaded
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            spec.loader.exec_module(module)
    finally:
        sys.argv = arguments
    return module


class Filter(Protocol):
    """A filter, or a chain of them; the peers of the shared bench are such."""

    name: str
    what: str
    index: str  # "warm" or "sign"
    auth: str | None
    groups: dict[str, int]  # name to process id, for what it costs

    def start(self, nameserver: str) -> None:
        """Start, and wait until it serves."""
        ...

    def stop(self) -> None:
        """Stop, and wait."""
        ...

    def sockets(self) -> list[str]:
        """What to connect to, one after the other."""
        ...


class Authmilter:
    """authmilter as an administrator runs it: a configuration file and `authmilter run`."""

    executable = str(Path(sys.executable).parent / "authmilter")
    settings: Mapping[str, Mapping[str, str]] = {}  # of the command line, for all
    _metrics_port = 9800

    def __init__(
        self,
        scratch: Path,
        name: str = "authmilter",
        *,
        tcp: bool = False,
        sign: Sequence[str] = (),
        settings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """`sign`: the algorithms to sign with."""
        self.name = self.what = name
        self.index = "sign" if sign else "warm"
        self.auth: str | None = "alice" if sign else None
        self.folder = scratch / name
        Authmilter._metrics_port += 1
        self.port = Authmilter._metrics_port
        self.address = f"inet:{self.port + 1000}@127.0.0.1" if tcp else f"unix:{self.folder}/s"
        self.groups: dict[str, int] = {}
        self._own = settings or {}
        self._sign = sign
        self._process: subprocess.Popen[bytes] | None = None

    def sockets(self) -> list[str]:
        """One."""
        return [self.address]

    def _write(self, nameserver: str) -> Path:
        sections: dict[str, dict[str, str]] = {
            "milter": {"socket": self.address, "drain_timeout": "1s"},
            "identity": {"authserv_id": AUTHSERV_ID},
            "dns": {"nameservers": f"{nameserver}:53"},
            "policy": {"enforce": "no"},
            "store": {"url": f"sqlite:{self.folder}/state.db"},
            "metrics": {"listen": f"127.0.0.1:{self.port}"},
        }
        if self._sign:
            domain, selector, key = signing_domain()
            section = sections[f"sign {domain}"] = {"selector": selector, "key_file": str(key)}
            if "ed25519" in self._sign:
                section |= {"ed25519_selector": "ed", "ed25519_key_file": str(ed25519_key()[0])}
        for more in (self._own, self.settings):
            for section_name, options in more.items():
                sections.setdefault(section_name, {}).update(options)
        path = self.folder / "authmilter.ini"
        path.write_text(
            "".join(
                f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
                for section, options in sections.items()
            )
        )
        return path

    def spawn(self, nameserver: str) -> float:
        """Start, without waiting; returns when, by time.perf_counter."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        path = self._write(nameserver)
        with (self.folder / "log").open("wb") as log:
            started = time.perf_counter()
            self._process = subprocess.Popen(
                [self.executable, "-c", path, "run"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.groups = {"authmilter": self._process.pid}
        return started

    def first_answer(self, started: float) -> float:
        """Seconds from `started` to the answer of a milter negotiation."""
        while time.perf_counter() - started < SPAWN_LIMIT:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {(self.folder / 'log').read_text()[-2000:]}")
            with contextlib.suppress(OSError):
                self._negotiate()
                return time.perf_counter() - started
            time.sleep(0.001)
        raise RuntimeError(f"{self.name} does not answer")

    def _negotiate(self) -> None:
        kind, _, rest = self.address.partition(":")
        sock = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        with sock:
            sock.settimeout(5)
            sock.connect(rest if kind == "unix" else ("127.0.0.1", int(rest.partition("@")[0])))
            sock.sendall(struct.pack("!IcIII", 13, b"O", 6, 0x1FF, 0x1FFFFF))
            if not sock.recv(64):
                raise ConnectionResetError
            sock.sendall(struct.pack("!Ic", 1, b"Q"))

    def start(self, nameserver: str) -> None:
        """Start, and wait until it answers."""
        self.first_answer(self.spawn(nameserver))
        time.sleep(0.5)  # the other worker too

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"{self.name} did not end after SIGTERM") from None
        finally:
            self._process = None

    def processes(self) -> dict[str, int]:
        """The processes by name; the exporter is forked first."""
        assert self._process is not None
        pid = self._process.pid
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return {
            "supervisor": pid,
            **{f"worker {n}" if n else "exporter": child for n, child in enumerate(sorted(children))},
        }

    def metrics(self) -> dict[str, float]:
        """Everything on /metrics: name with labels, to value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"}


def pss(pid: int) -> float:
    """Proportional set size in MiB: shared pages count by their share; 0 if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return int(text.partition("\nPss:")[2].split()[0]) / 1024 if "\nPss:" in text else 0.0


class Sampler:
    """Reads the PSS of processes again and again, in a thread."""

    def __init__(self, pids: Mapping[str, int], interval: float) -> None:
        self._pids = pids
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[tuple[float, dict[str, float]]] = []  # seconds since start; MiB by name

    def _run(self) -> None:
        started = time.monotonic()
        while True:
            self.samples.append((time.monotonic() - started, {name: pss(pid) for name, pid in self._pids.items()}))
            if self._stop.wait(self._interval):
                return

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def peak(self) -> float:
        """The largest sum."""
        return max(sum(sample.values()) for _, sample in self.samples)


class Rig:
    """DNS servers, and runs of the load generator."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        raise_file_limit()
        self.shared = load_shared_runner(scratch)
        self.env = self.shared.Env()
        self.bulk_dns = subprocess.Popen(
            [VAR / "bulkdns", BULK_DNS, FAST_DNS, key_record(bulk_key())], stdout=subprocess.PIPE, text=True
        )
        assert self.bulk_dns.stdout is not None
        self.bulk_dns.stdout.readline()

    def close(self) -> None:
        """Stop the DNS servers."""
        self.bulk_dns.terminate()
        self.bulk_dns.wait()
        self.env.close()

    def peers(self, names: Sequence[str]) -> tuple[list[Filter], list[str]]:
        """The peers of these names that are installed, and what is missing for the others."""
        known = {peer.name: peer for peer in self.shared.PEERS}
        found, missing = [], []
        for name in names:
            if name not in known:
                raise SystemExit(f"no peer {name}; there are: {', '.join(sorted(known))}")
            programs = [program for word, program in PROGRAMS.items() if word in name]
            absent = [program for program in programs if not shutil.which(program)]
            if absent:
                missing.append(f"{name}: {', '.join(absent)} not installed")
            else:
                found.append(known[name])
        return found, missing

    def command(
        self,
        subject: Filter,
        index: Path,
        count: int,
        connections: int,
        *,
        more: Sequence[str] = (),
    ) -> list[str]:
        """The load generator's command line."""
        command = [str(VAR / "milterload"), "-i", str(index), "-n", str(count), "-c", str(connections)]
        for sock in subject.sockets():
            command += ["-s", sock]
        if subject.auth:
            command += ["-a", subject.auth]
        return [*command, *more]

    def load(
        self,
        subject: Filter,
        index: Path,
        count: int,
        connections: int,
        *,
        rate: float = 0,
        more: Sequence[str] = (),
        may_fail: bool = False,
    ) -> dict[str, Any]:
        """Send messages, and return what milterload measured.

        `cpu_ms` is user and system time of all processes of the subject, per message; `p50` and `p99` are milliseconds
        from CONNECT to the final reply, `whole_p50` and `whole_p99` of the whole connection; `rate` in messages a second.
        """
        output = self.scratch / "milterload.json"
        output.unlink(missing_ok=True)
        groups = [word for name, pid in subject.groups.items() for word in ("-p", f"{name}={pid}")]
        command = self.command(subject, index, count, connections, more=[*groups, "-j", str(output), *more])
        times = self.scratch / "times.json"
        times.unlink(missing_ok=True)
        chain = str(len(subject.sockets()))
        environment = {**os.environ, "MILTERLOAD_TIMES": str(times), "MILTERLOAD_CHAIN": chain}
        if rate:
            environment["MILTERLOAD_RATE"] = str(rate)
        calibration = self.shared.calib()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
        if not output.exists():
            raise RuntimeError(f"milterload failed: {done.stdout}{done.stderr}")
        row: dict[str, Any] = json.loads(output.read_text()) | json.loads(times.read_text())
        del row["label"]
        if row["errors"] and isinstance(subject, Authmilter) and not may_fail:
            raise WrongAnswerError(f"{row['errors']} of {count} messages had no answer: {done.stdout}")
        if last := re.search(r"errors, last: (.*)", done.stdout):
            row["last_error"] = last[1]
        row["cpu_ms"] = sum(group["cpu_ms"] for group in row["groups"].values())
        row["pss_mib"] = sum(group["pss1"] for group in row["groups"].values()) / 1024
        row["peak_rss_mib"] = sum(group["peak"] for group in row["groups"].values()) / 1024
        row["calibration_ms"] = calibration
        row["load_average"] = os.getloadavg()[0]
        return row

    @contextlib.contextmanager
    def background(self, subject: Filter, index: Path, connections: int) -> Iterator[subprocess.Popen[bytes]]:
        """Send the messages of an index over and over meanwhile."""
        process = subprocess.Popen(
            self.command(subject, index, 1 << 30, connections), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
