"""Stand-ins for the world, for tests of pure code."""

from collections.abc import Iterable, Mapping, Sequence

from authmilter.errors import DnsTempError
from authmilter.interfaces import Answer


class FakeDNS:
    """A Resolver over a table: ``FakeDNS({"example.org TXT": ["v=spf1 -all"]}, fail=["b.example A"])``.

    A name with records of another type, or with names below it, exists: then the answer is "no data", else NXDOMAIN.
    `asked` lists what was queried, in order.  Records of TXT may be str or bytes; CNAME rows are followed.
    """

    def __init__(self, records: Mapping[str, Sequence[str | bytes]] | None = None, fail: Iterable[str] = ()) -> None:
        self.table: dict[tuple[str, str], list[str | bytes]] = {}
        for key, values in (records or {}).items():
            self.add(key, values)
        self.fail = {(n.rstrip(".").lower(), t) for n, t in (row.rsplit(" ", 1) for row in fail)}
        self.asked: list[str] = []

    def add(self, key: str, values: Sequence[str | bytes]) -> None:
        """Add a row."""
        name, rdtype = key.rsplit(" ", 1)
        self.table[name.rstrip(".").lower(), rdtype] = list(values)

    async def query(self, name: str, rdtype: str) -> Answer:
        """Answer from the table."""
        self.asked.append(f"{name.rstrip('.').lower()} {rdtype}")
        return self.answer(name, rdtype)

    def answer(self, name: str, rdtype: str) -> Answer:
        """The same, without a note that it was asked."""
        name = name.rstrip(".").lower()
        for _ in range(10):
            if (name, rdtype) in self.fail:
                raise DnsTempError(f"{name} {rdtype}: SERVFAIL")
            alias = self.table.get((name, "CNAME"))
            if alias is None or rdtype == "CNAME":
                break
            name = str(alias[0]).rstrip(".").lower()
        if not all(0 < len(label) < 64 for label in name.split(".")) or len(name) > 253:
            return Answer((), exists=False)
        records = self.table.get((name, rdtype), [])
        exists = any(n == name or n.endswith("." + name) for n, _ in self.table)
        if rdtype == "TXT":
            return Answer(tuple(r if isinstance(r, bytes) else r.encode() for r in records), exists, 300.0)
        return Answer(tuple(_host(str(r)) for r in records), exists, 300.0)

    def known(self, name: str, rdtype: str) -> Answer | None:
        """Keeps nothing."""
        return None

    def prefetch(self, name: str, rdtype: str) -> None:
        """Nothing to gain."""

    def for_client(self, client: str) -> "FakeDNS":
        """Everybody asks the same."""
        return self


def _host(text: str) -> str:
    """An address, a host name without final dot, or an MX, whose host may be the root (RFC 7505)."""
    return text.lower() if text.endswith(" .") else text.rstrip(".").lower()
