"""Failures that forwarding explains, and policies that the administrator knows better (RFC 9989 section 5.8, 7.4).

A forwarder breaks SPF when it leaves the envelope alone, and a list breaks DKIM when it adds a footer.  Neither changes a
result: what is decided here is only which disposition follows, and why, as `policy.override` of the DMARC result.  The
reasons are those of aggregate reports (RFC 9990): ``trusted_forwarder``, ``mailing_list``, ``local_policy``.

All of it is a pure function of the transaction and the configuration.
"""

from collections.abc import Mapping, Sequence

from authmilter.config.schema import Config, DmarcOverride, Forwarders
from authmilter.evidence import AuthResult, Result
from authmilter.model import Mailbox, Transaction
from authmilter.networks import find_name, find_network

TRUSTED_FORWARDER = "trusted_forwarder"
MAILING_LIST = "mailing_list"
LOCAL_POLICY = "local_policy"
OVERRIDE = "policy.override"  # why the disposition is not that of the record
APPLIED = "policy.applied"  # the disposition instead, where it is another one than none

_SPF_BROKEN = (Result.FAIL, Result.SOFTFAIL, Result.NEUTRAL)
_LIST_FIELDS = (b"list-id", b"list-post", b"list-unsubscribe", b"mailing-list")


def with_override(tx: Transaction, config: Config, sealed: Sequence[AuthResult] = ()) -> Transaction:
    """The transaction, with failures of SPF and DMARC annotated where the administrator's word overrides the record.

    `sealed` are the results that a trusted chain of ARC sealers recorded, empty if there is none.  Before DMARC is known
    only SPF can be excused.
    """
    dmarc = spf = None
    for result in tx.results:
        if result.method == "dmarc":
            dmarc = dmarc or result
        elif result.method == "spf":
            spf = spf or result
    if dmarc is not None and dmarc.result is Result.FAIL:
        found = _override(tx, dmarc, config, sealed)
        if found:
            reason, applied, why = found
            properties = {**dmarc.properties, OVERRIDE: reason}
            if applied != "none":
                properties[APPLIED] = applied
            tx = _replaced(tx, dmarc, dmarc._replace(properties=properties, reason=f"{dmarc.reason}; {why}"))
    elif spf is not None and spf.result is Result.FAIL and OVERRIDE not in spf.properties:
        entry = _forwarder(tx, config)
        if entry:
            properties = {**spf.properties, OVERRIDE: TRUSTED_FORWARDER}
            tx = _replaced(tx, spf, spf._replace(properties=properties, reason=f"{spf.reason}; forwarded by {entry}"))
    return tx


def is_excused(result: AuthResult) -> bool:
    """Did forwarding excuse this failure?"""
    return result.properties.get(OVERRIDE) in (TRUSTED_FORWARDER, MAILING_LIST)


def _replaced(tx: Transaction, old: AuthResult, new: AuthResult) -> Transaction:
    return tx._replace(results=tuple(new if r is old else r for r in tx.results))


def _override(
    tx: Transaction, dmarc: AuthResult, config: Config, sealed: Sequence[AuthResult]
) -> tuple[str, str, str] | None:
    """Reason, the disposition that is applied, and a sentence; None if the record stands."""
    sealer = _vouched(dmarc, sealed)
    if sealer:
        return TRUSTED_FORWARDER, "none", sealer
    entry = _forwarder(tx, config)
    pattern = _pattern(tx, dmarc) if entry else ""
    if pattern:
        return pattern, "none", f"forwarded by {entry}"
    own = override_for(dmarc.identifier, config.dmarc_overrides)
    if own is not None and own.policy != dmarc.properties.get("policy.dmarc"):
        return LOCAL_POLICY, own.policy, f"[dmarc override] says {own.policy}"
    return None


def _forwarder(tx: Transaction, config: Config) -> str:
    """By which entry the message came from a forwarder that all its recipients know; "" if by none."""
    common = _matches(tx, config.forwarders)
    if common or not config.recipient_forwarders:
        return common
    paths = tx.envelope.forward_paths
    if not paths:  # before RCPT: one of them may be the recipient's
        return next((e for f in config.recipient_forwarders.values() if (e := _matches(tx, f))), "")
    entries = [_recipient_entry(tx, path, config.recipient_forwarders) for path in paths]
    return entries[0] if all(entries) else ""


def _recipient_entry(tx: Transaction, path: Mailbox, forwarders: Mapping[str, Forwarders]) -> str:
    names = (path.address, path.domain)
    return next((e for name in names if name in forwarders and (e := _matches(tx, forwarders[name]))), "")


def override_for(domain: str, overrides: Mapping[str, DmarcOverride]) -> DmarcOverride | None:
    """The most specific [dmarc override] for a domain: its own, or that of the nearest domain above it."""
    labels = domain.split(".")
    for i in range(len(labels)):
        found = overrides.get(".".join(labels[i:]))
        if found is not None:
            return found
    return None


def _matches(tx: Transaction, forwarders: Forwarders) -> str:
    network = find_network(forwarders.networks, tx.connection.client_ip)
    if network is not None:
        return f"network {network}"
    for result in tx.results:
        if result.result is not Result.PASS:
            continue
        listed = {"iprev": forwarders.names, "dkim": forwarders.dkim}.get(result.method, ())
        entry = find_name(listed, result.identifier)
        if entry:
            return f"{result.method} {entry}"
    return ""


def within(domain: str, entry: str) -> bool:
    """Is the domain that of the entry, or, where the entry begins with a dot, that one or one below it?"""
    return domain == entry.lstrip(".") or (entry.startswith(".") and domain.endswith(entry))


def _pattern(tx: Transaction, dmarc: AuthResult) -> str:
    """Does the failure look like forwarding?  Which kind, "" if not.

    A message that fails in no way that forwarding can bring about is a forgery that came by a forwarder.
    """
    author = dmarc.identifier
    path = tx.envelope.reverse_path
    own_envelope = any(
        r.method == "spf" and r.result is Result.PASS and not _related(r.identifier, author) for r in tx.results
    )
    if own_envelope and any(tx.message.first(name) is not None for name in _LIST_FIELDS):
        return MAILING_LIST
    for result in tx.results:
        # The forwarder left the envelope alone, so SPF met its address instead of the sender's.
        if result.method == "spf" and result.result in _SPF_BROKEN and _related(result.identifier, author):
            return TRUSTED_FORWARDER
        # It changed what the author's domain had signed.
        if result.method == "dkim" and result.result is Result.FAIL and _related(result.identifier, author):
            return TRUSTED_FORWARDER
    if own_envelope and path is not None and path.local_part.upper().startswith((b"SRS0", b"SRS1")):
        return TRUSTED_FORWARDER  # the forwarder rewrote the envelope to a domain of its own
    return ""


def _related(identifier: str, author: str) -> bool:
    return identifier == author or identifier.endswith("." + author) or author.endswith("." + identifier)


def _vouched(dmarc: AuthResult, sealed: Sequence[AuthResult]) -> str:
    """What a trusted sealer saw of the author domain before the message was changed; "" if nothing that helps."""
    seen = [r for r in sealed if r.method == "dmarc"]
    # All of them: a second result may have come in by something that the sealer copied from the message.
    if seen and all(
        r.result is Result.PASS and r.properties.get("header.from", "").lower() == dmarc.identifier for r in seen
    ):
        return f"a trusted ARC sealer saw DMARC pass for {dmarc.identifier}"
    return ""
