"""Clients that the administrator names ([access])."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network
from typing import NamedTuple

from authmilter.check import Tools, Words, check
from authmilter.config import endpoint
from authmilter.config.option import Names, Networks, Weight, Weighted, WeightedNames, kind_of, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.model import Connection, Stage, Transaction
from authmilter.networks import NameTable, NetworkTable
from authmilter.verdict import Action


def _is_network(text: str) -> bool:
    return ":" in text or "/" in text or text.rpartition(".")[2].isdecimal()


def client(text: str) -> str:
    """Normal form of an address, a network, or the name of a client; raises ValueError with a message for people."""
    if _is_network(text):
        networks = kind_of(Networks)
        return networks.write(networks.read(text))
    return endpoint.domain_or_parent(text)


class Rule(NamedTuple):
    """What an entry asks for, and the entry as written."""

    weight: Weight
    entry: str


@dataclass(frozen=True)
class Access:
    """Clients whose mail is accepted, refused, deferred or weighed, whatever it is.

    An entry is an address or network, such as 192.0.2.1, 192.0.2.0/24 and 2001:db8::/32, or a host name, where a leading
    dot takes in what is below it: .example.net.  Names hold only for clients whose name the MTA has confirmed by reverse
    and forward DNS, since anybody can give himself any name in reverse DNS alone.

    One entry decides: of the networks that the address lies in the one with the longest prefix; where there is none, the
    longest of the names.
    Where the same entry stands in several options, accept goes before reject, that before tempfail, and that before
    weights.

    A client that is refused or deferred hears so in place of the greeting, even if a user would have logged in next, and
    under the preset observe too.  Postfix puts it in words of its own, `554 HOST ESMTP not accepting connections` and
    `421 HOST Service unavailable - try again later`; ours are in its log.  So does Sendmail, `554 HOST ESMTP not accepting
    messages` and `421 4.7.0 HOST closing connection`.  Clients in [networks] internal and trusted_relays are not looked up.
    """

    accept: Names = option((), "Clients whose mail is accepted, whatever else is found.", each=client)
    reject: Names = option((), "Clients that are refused: 554 5.7.1.", each=client)
    tempfail: Names = option((), "Clients that are to come again later: 421 4.7.0.", each=client)
    weights: WeightedNames = option(
        (),
        "Clients whose mail weighs more or less: 192.0.2.0/24 = 3.0, .example.net = -2; without a number it is 1.0.  An "
        "action such as tag, quarantine or discard may stand in its place.",
        each=client,
    )

    @cached_property
    def rules(self) -> tuple[tuple[str, Rule], ...]:
        """Every entry, those that go before others first."""
        weighted = (
            *(Weighted(text, Action.ACCEPT) for text in self.accept),
            *(Weighted(text, Action.REJECT) for text in self.reject),
            *(Weighted(text, Action.TEMPFAIL) for text in self.tempfail),
            *self.weights,
        )
        return tuple((item.text, Rule(1.0 if item.weight is None else item.weight, item.text)) for item in weighted)

    @cached_property
    def networks(self) -> NetworkTable[Rule]:
        """The entries that are addresses and networks."""
        return NetworkTable((ip_network(text), rule) for text, rule in self.rules if _is_network(text))

    @cached_property
    def names(self) -> NameTable[Rule]:
        """The other entries."""
        return NameTable((text, rule) for text, rule in self.rules if not _is_network(text))

    def rule_for(self, connection: Connection) -> Rule | None:
        """The rule that holds for a client."""
        rule = self.networks.find(connection.client_ip)
        return rule or self.names.find(connection.client_name.lower().rstrip("."))


def _symbol(weight: Weight) -> str:
    return f"access_{weight.value}" if isinstance(weight, Action) else "access_weight"


def _symbols(config: Config) -> Mapping[str, Weight]:
    """Only what is asked for: clients need not wait for an answer that is always the same."""
    return {
        _symbol(rule.weight): rule.weight if isinstance(rule.weight, Action) else 1.0
        for _, rule in config.of(Access).rules
    }


def _has_rules(config: Config) -> bool:
    """Are there any?  Makes the tables too, since no client should wait for that."""
    options = config.of(Access)
    return any([options.networks, options.names])


def _words(tx: Transaction, _: str) -> str:
    return f"{tx.connection.client_ip or 'This client'} may not send mail here; please ask the postmaster if it should"


def _later(tx: Transaction, _: str) -> str:
    return f"{tx.connection.client_ip or 'This client'} may not send mail here for now, please try again later"


@check(
    Stage.CONNECT,
    scores={"access_accept": Action.ACCEPT, "access_weight": 1.0},
    options=Access,
    wanted=_has_rules,
    replies={"access_reject": Words("7.1", _words), "access_tempfail": Words("7.0", _later)},
    prefix="access_",
    dynamic=_symbols,
)
def access(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """Client is in [access]; `access_weight` times the number there, or `access_ACTION`."""
    rule = tools.options.rule_for(tx.connection)
    if rule is not None:
        strength = 1.0 if isinstance(rule.weight, Action) else rule.weight
        yield Finding(_symbol(rule.weight), f"[access] {rule.entry}", strength)
