#!/usr/bin/env python3
"""Makes replies.md: every SMTP reply of authmilter, with what it means and what helps.

    python contrib/docs/replies.py >contrib/docs/replies.md

Codes, words, stages and what each preset does are asked of the code.  Written here is what no code knows: what a sender
and an administrator can do.  A test compares the page, and fails for a reply that is missing.
"""

import sys
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from ipaddress import ip_address
from typing import NamedTuple

from authmilter.check import DERIVED, all_checks, method_symbols
from authmilter.config.schema import Config
from authmilter.config.schema import Policy as PolicyOptions
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.milter.engine import TOO_BUSY
from authmilter.model import Connection, Envelope, Mailbox, Stage, Transaction
from authmilter.policy import Policy
from authmilter.replies import reply_for
from authmilter.verdict import Action, Reply

PRESETS = ("observe", "balanced", "strict")
REFERENCE = "am-20d2c19bee"


class Entry(NamedTuple):
    """One text of ours.  A symbol that ends in an underscore stands for all that begin with it."""

    symbols: str
    detail: str  # what the check would have found, for the example
    meaning: str
    sender: str
    administrator: str


_LATER = "Nothing: your server sends it again by itself.  If it goes on for hours, tell your postmaster."
_NAME = "Give your mail server a fully-qualified host name that has its address in the DNS, and let it greet with that."
_ADDRESS = "Send from an address whose domain exists and takes mail."
_FALSE = "If it is wanted mail"

ENTRIES: Mapping[str, tuple[Entry, ...]] = {
    "Who connects": (
        Entry(
            "access_reject",
            "",
            "The administrator of this server refuses mail from your address or name.",
            "Ask the postmaster of the recipient in another way, for instance from another mail service.",
            "The entry is in `[access] reject`; the log names it.  Users who log in from there are refused too.",
        ),
        Entry(
            "access_tempfail",
            "",
            "The administrator of this server takes no mail from you for now.",
            _LATER,
            "The entry is in `[access] tempfail`.",
        ),
        Entry(
            "connections_exceeded connection_rate_exceeded",
            "192.0.2.7 at once, please close some of them first",
            "Your server, or its network, holds more connections than it may, or makes them too fast.",
            "Let your server open fewer connections to one destination.  The mail comes by itself a little later.",
            "`[connections] per_address`, `per_network`, `rate_address` and `rate_network`; `exempt` excepts a client.",
        ),
        Entry(
            "dnsbl_",
            "list.example.org (127.0.0.2)",
            "The address of your mail server is on a blocklist, which the reply names.",
            "Look the address up at that list, mend what put it there, and ask the list to take it off.  The recipient can't.",
            f"{_FALSE}: `[access] accept`, or a smaller weight for this list in `[scores]`.  `authmilter status` tells "
            "how the lists are.",
        ),
        Entry(
            "generic_rdns",
            "pool-192-0-2-7.isp.example",
            "Your address has a name that a provider gives to home lines.",
            "Send by the mail server of your provider, or let him give your address the name of your server.",
            "`generic_rdns` has a weight only, unless you gave it an action in `[scores]`.",
        ),
        Entry(
            "iprev_fail",
            "",
            "The name that reverse DNS gives for your address does not have this address.",
            "Let PTR and address record (A, AAAA) of your mail server name each other.",
            "`iprev_fail` has a weight only, unless you gave it an action in `[scores]`.",
        ),
        Entry(
            "iprev_permerror",
            "",
            "Your address has no name in reverse DNS.",
            "Ask the provider of your address for a PTR record with the name of your mail server.",
            "`iprev_permerror` has a weight only, unless you gave it an action in `[scores]`.",
        ),
        Entry(
            "iprev_temperror",
            "",
            "Reverse DNS of your address did not answer.",
            "Your server sends it again by itself.  If it goes on, look after the name servers of your reverse zone.",
            "If it is so for many clients, your resolver fails: `[dns] nameservers`.",
        ),
    ),
    "How it greets": (
        Entry(
            "helo_literal",
            "[192.0.2.7]",
            "Your server greets with an address in place of its name.",
            _NAME,
            "`helo_literal` has a weight only, unless you gave it an action in `[scores]`.",
        ),
        Entry(
            "helo_literal_foreign",
            "[203.0.113.9] is not 192.0.2.7",
            "Your server greets with an address that is not its own.",
            _NAME,
            "Behind address translation a client may not know its address: `[networks] internal` if it is yours.",
        ),
        Entry(
            "helo_literal_malformed",
            "[192.0.2]",
            "Your server greets with what is neither a name nor an address.",
            _NAME,
            "`helo_literal_malformed = 0.5` in `[scores]` lets it pass under the preset strict.",
        ),
        Entry(
            "helo_malformed",
            "mail!server",
            "Your server greets with what can't be a name.",
            _NAME,
            "`helo_malformed = 1.5` in `[scores]` lets it pass under the preset strict.",
        ),
        Entry(
            "helo_own_name",
            "mx.example.net",
            "Your server greets with the name of ours.",
            _NAME,
            "If it is one of yours: `[networks] internal` or `trusted_relays`.",
        ),
        Entry(
            "helo_local_domain",
            "example.net",
            "Your server greets with a domain of ours.",
            _NAME,
            "If it is one of yours: `[networks] internal`, or give it confirmed reverse DNS in that domain.",
        ),
        Entry(
            "helo_bare",
            "mail",
            "Your server greets with a name without a domain.",
            _NAME,
            "`helo_bare` has a weight only, unless you gave it an action in `[scores]`.",
        ),
        Entry(
            "helo_unresolvable",
            "mail.sender.example has neither address nor MX",
            "The name that your server greets with is not in the DNS.",
            _NAME,
            "RFC 5321 section 4.1.4 advises against an action here.  Take it out of `[scores]`.",
        ),
        Entry(
            "helo_mismatch",
            "mail.sender.example is not the name of 192.0.2.7",
            "The name that your server greets with has another address.",
            _NAME,
            "RFC 5321 section 4.1.4 forbids to refuse mail for this.  Take the action out of `[scores]`.",
        ),
        Entry(
            "spf_helo_fail",
            "",
            "The name that your server greets with publishes an SPF record, and your address is not in it.",
            "Put the address into the SPF record of that name, or greet with the name that is yours.",
            "It has no action by itself.  `[spf] helo` turns this check off.",
        ),
    ),
    "From which address": (
        Entry(
            "spf_fail spf_fail_no_dmarc_pass",
            "",
            "The SPF record of the sender's domain ends in `-all`, and your server is not in it.",
            "Send by the servers of that domain, or put your server into its SPF record.  A DKIM signature of the domain "
            "in From helps as well, except under the preset strict.  If you forward: rewrite the envelope sender (SRS).",
            f"{_FALSE} that was forwarded: `[forwarders] networks`.  `[spf] skip` excepts your own secondary MX.  "
            "`spf_fail = 4.0` in `[scores]` makes it a weight.",
        ),
        Entry(
            "spf_permerror",
            "",
            "The SPF record of the sender's domain has a mistake, or needs more than ten lookups.",
            "Mend the SPF record: one record, at most ten lookups.",
            "It has no action by itself.  `authmilter check-message` tells what is wrong with the record.",
        ),
        Entry(
            "spf_temperror",
            "",
            "A name server needed for SPF did not answer.",
            "Your server sends it again by itself.  If it goes on, look after the name servers of the domain.",
            "`[spf] on_temperror = accept` takes such mail.  If it is so for many domains, your resolver fails.",
        ),
        Entry(
            "sender_domain_nonexistent",
            "sender.example",
            "The domain of the sender's address does not exist.",
            _ADDRESS,
            "If your resolver knows less than the world (split DNS): `[dns] nameservers`, or `[sender_domain] enabled`.",
        ),
        Entry(
            "sender_domain_unreachable",
            "sender.example",
            "The domain of the sender's address has neither MX nor address.",
            _ADDRESS,
            "`sender_domain_unreachable` has a weight only, unless you gave it an action in `[scores]`.",
        ),
        Entry(
            "sender_mx_private",
            "sender.example",
            "The mail servers of the sender's domain have private addresses.",
            _ADDRESS,
            "`sender_mx_private` has a weight only, unless you gave it an action in `[scores]`.",
        ),
        Entry(
            "sender_null_mx",
            "sender.example",
            "The sender's domain says that it takes no mail (RFC 7505).",
            _ADDRESS,
            "`sender_null_mx = 1.0` in `[scores]` lets it pass under the preset strict.",
        ),
        Entry(
            "sender_domain_temperror",
            "sender.example",
            "The name servers of the sender's domain did not answer.",
            "Your server sends it again by itself.  If it goes on, look after the name servers of the domain.",
            "`sender_domain_temperror = 0` in `[scores]` takes such mail under the preset strict.",
        ),
        Entry(
            "sender_malformed",
            "a@b@c",
            "The sender's address (MAIL FROM) has no valid form.",
            "Correct the envelope sender of the program that sends.",
            "`sender_malformed = 1.0` in `[scores]` lets it pass under the preset strict.",
        ),
        Entry(
            "sender_is_local",
            "example.net",
            "The sender's address is of a domain of ours, and nothing shows that the mail is ours.",
            "If you are a user of this server: log in, and use the submission port.",
            "If it is a server of yours: its address into the SPF record of the domain, or `[networks] internal`.",
        ),
        Entry(
            "sender_is_recipient",
            "user@example.net",
            "Sender and recipient are the same address, and nothing shows that its owner wrote it.",
            "Send it through the mail server of that address, logged in.",
            "If it is a service of yours: its address into the SPF record of the domain, or `[networks] internal`.",
        ),
        Entry(
            "sender_rate_exceeded",
            "",
            "More mail of the sender's domain came than this server takes in a while.",
            "Nothing: your server sends the rest by itself.  Send large mailings more slowly.",
            "`[sender_rate] messages`; `exempt` excepts a domain.",
        ),
    ),
    "To whom": (
        Entry(
            "greylist greylist_bounce",
            "5 minutes: client has no reverse DNS",
            "Your server is not known here yet, and something about it is doubtful: the reply says what.",
            "Nothing: your server tries again by itself, and the mail is taken after the time that the reply tells.  To avoid "
            "the wait, mend what the reply names.",
            "`[greylist] delay` and `who`; `except_networks`, `except_domains` and `except_recipients` except some.",
        ),
        Entry(
            "too_many_recipients",
            "more than 100",
            "The message has more recipients than this server takes at once.  Those before were accepted.",
            "Nothing: your server sends to the others by itself in another transaction.",
            "`[recipients] max_per_message`.",
        ),
        Entry(
            "bounce_recipients",
            "",
            "A message from the null sender goes to several recipients; notifications go to one.",
            "Send newsletters and the like from an address, not from `<>`.",
            "`bounce_recipients = 2.0` in `[scores]` lets it pass under the preset strict.",
        ),
        Entry(
            "spamtrap",
            "trap@example.net",
            "The message looks like spam to this server.  No more is told.",
            "Write only to those who asked for it, and remove dead addresses from your lists.",
            "One of the recipients is in `[spamtraps] addresses`.  Don't tell the sender.",
        ),
    ),
    "What the message is": (
        Entry(
            "dmarc_fail_reject_corroborated dmarc_fail_reject dmarc_fail_quarantine dmarc_fail_none dmarc_fail",
            "",
            "The domain in From publishes a DMARC policy, and neither SPF nor DKIM shows that the mail comes from there.",
            "Send by a server that signs (DKIM) as the domain in From, or that its SPF record names.  Mailing lists: "
            "write your own address into From.",
            f"{_FALSE} that was forwarded: `[forwarders] networks`, `names` or `dkim`, or `[arc] trusted_sealers`.  For one "
            "domain: `[dmarc override DOMAIN] policy`, or `[allow DOMAIN]`.",
        ),
        Entry(
            "dmarc_temperror",
            "",
            "A name server needed for DMARC did not answer.",
            "Your server sends it again by itself.  If it goes on, look after the name servers of the domain.",
            "`[dmarc] on_temperror = accept` takes such mail.  If it is so for many domains, your resolver fails.",
        ),
        Entry(
            "dkim_temperror",
            "",
            "The name server that has the key of the DKIM signature did not answer.",
            "Your server sends it again by itself.  If it goes on, look after the name servers of the signing domain.",
            "`[dkim] on_temperror = accept` takes such mail.  If it is so for many domains, your resolver fails.",
        ),
        Entry(
            "dkim_none",
            "",
            "The message has no DKIM signature.",
            "Sign your mail.",
            "You gave `dkim_none` an action in `[scores]`.  Much good mail has no signature: a weight is better.",
        ),
        Entry(
            "dkim_fail",
            "",
            "The DKIM signature of the message is wrong: it was changed on its way, or the key is another one.",
            "Sign after everything that changes the message, and compare key and DNS record.",
            "You gave `dkim_fail` an action in `[scores]`.  RFC 6376 section 6.3 advises against it: lists break signatures.",
        ),
        Entry(
            "arc_fail",
            "",
            "The ARC chain of the message is broken.",
            "The last forwarder that seals must be mended; the author can do nothing.",
            "You gave `arc_fail` an action in `[scores]`.  Take it out: a broken chain is as good as none.",
        ),
        Entry(
            "ambiguous_from",
            "several From fields",
            "Nobody can tell the author: From is missing, repeated, malformed, or has several domains.",
            "Write one From field with one address.",
            "`ambiguous_from = 2.0` in `[scores]` lets it pass.  DMARC can't be checked for such mail.",
        ),
        Entry(
            "forged_flood",
            "",
            "The message has more result fields (Authentication-Results, X-Spam) than any honest one.",
            "Remove them before you send.",
            "`forged_flood = 2.0` in `[scores]` lets it pass; those in our name are removed all the same.",
        ),
        Entry(
            "uribl_",
            "shop.example, which is listed by list.example.org (127.0.0.2)",
            "A link in the message leads to a domain on a blocklist, which the reply names.",
            "Take the link out, or ask that list to take the domain off.",
            f"{_FALSE}: a smaller weight for this list in `[scores]`, or its domain in `[uri_lists] exempt`.",
        ),
        Entry(
            "",
            "",
            "Many things about the message together look like spam.",
            "Write to the postmaster of the recipient from another service, with the reference in brackets.",
            "`authmilter check-message` with the stored message shows the findings.  `[policy] reject` is the threshold; "
            "`[allow DOMAIN]` accepts a sender that is proven.",
        ),
    ),
    "What is attached": (
        Entry(
            "antivirus_found outbound_antivirus_found",
            "Eicar-Test-Signature",
            "The virus scanner found malware, by the name that the reply tells.",
            "Look for malware on the machine that the file comes from.  If the file is clean, tell the vendor of the scanner.",
            "The log has the name of the signature.  What `[antivirus] suspicious` names has a weight only; clamd itself has a "
            "list of signatures to ignore (`.ign2`).",
        ),
        Entry(
            "antivirus_suspicious outbound_antivirus_suspicious",
            "Heuristics.Encrypted.Zip",
            "The virus scanner found what looks like malware.",
            "Send the file in another way.",
            "`[antivirus] suspicious` names what counts so; it has a weight unless `[scores]` says otherwise.",
        ),
        Entry(
            "antivirus_cut outbound_antivirus_cut",
            "attachment.zip",
            "The message is too large or too nested to be scanned as a whole.",
            "Send less at once, or archives that are not within archives.",
            "You gave `antivirus_cut` an action in `[scores]`.  `[milter] scan_size` and the limits of clamd set what is scanned.",
        ),
        Entry(
            "antivirus_temperror outbound_antivirus_temperror",
            "",
            "The virus scanner does not answer.",
            _LATER,
            "Start clamd again.  `[antivirus] on_error = accept` takes mail unscanned meanwhile.",
        ),
        Entry(
            "attachment_refused",
            "setup.js",
            "Files of this kind are not taken here.",
            "Send the file in another way, such as a link to a download that asks for a login.",
            "`[attachments] reject` names the kinds.",
        ),
        Entry(
            "attachment_dangerous attachment_executable attachment_double_extension attachment_name_hides "
            "attachment_disguised attachment_in_archive",
            "invoice.pdf.exe",
            "An attached file, or one in an archive, opens as a program or hides what it is.",
            "Send the file in another way, under a name that says what it is.",
            "You gave one of these symbols an action in `[scores]`; the log names it.",
        ),
        Entry(
            "attachment_encrypted",
            "secret.zip",
            "An attached archive or document is encrypted, so that nobody can look into it.",
            "Send the file in another way.",
            "You gave `attachment_encrypted` an action in `[scores]`.",
        ),
        Entry(
            "attachment_password_told",
            "secret.zip",
            "An attached file is encrypted, and its password stands in the message, as malware has it.",
            "Tell the password by telephone, and send the file in another way.",
            "You gave `attachment_password_told` an action in `[scores]`.",
        ),
        Entry(
            "attachment_unread",
            "data.rar",
            "An attached archive is damaged, or of a kind that is not read here.",
            "Pack it anew, as ZIP.",
            "You gave `attachment_unread` an action in `[scores]`.",
        ),
        Entry(
            "attachment_bomb",
            "data.zip",
            "An attached archive unpacks to far more than its size.",
            "Send the file in another way.",
            "You gave `attachment_bomb` an action in `[scores]`.",
        ),
        Entry(
            "attachment_macro attachment_macro_autorun attachment_macro_calls attachment_remote attachment_dde "
            "attachment_object attachment_pdf_script attachment_pdf_launch attachment_pdf_program "
            "attachment_pdf_link_only",
            "offer.docm",
            "An attached document has macros, scripts or links by which it does something when it is opened.",
            "Save it without macros, or as a plain PDF.",
            "You gave one of these symbols an action in `[scores]`; the log names it.",
        ),
        Entry(
            "attachment_html attachment_html_lure attachment_html_script attachment_html_smuggling attachment_svg_lure "
            "attachment_svg_link attachment_calendar_link",
            "invoice.html",
            "An attached page, picture or invitation asks for a password, runs scripts, or leads elsewhere.",
            "Send a PDF or plain text.",
            "You gave one of these symbols an action in `[scores]`; the log names it.",
        ),
        Entry(
            "macros_autorun macros_suspicious",
            "offer.docm: AutoOpen",
            "An attached document has macros that run by themselves, or do what malware does.",
            "Send the document without macros.",
            "You gave one of these symbols an action in `[scores]`.  `[macros] enabled` turns the check off.",
        ),
    ),
    "Mail of your own users": (
        Entry(
            "from_mismatch",
            "boss@example.net when logged in as alice@example.net",
            "You wrote an address into From that your login may not use.",
            "Use the address of your login, or ask your administrator to grant you the other one.",
            "`[submission] from_must_match` and `map_file`.",
        ),
        Entry(
            "outbound_limit outbound_recipients_limit",
            "60 messages per minute for this login is used up, try again in 40 seconds",
            "Your login, domain or machine sent as much as it may in that time.",
            "Wait for the time that the reply tells.  If you did not send that much, change your password: somebody else has it.",
            "`[outbound_limits]`, or `[outbound_limits LOGIN]` for one.  `authmilter state release LOGIN` lets it go on at "
            "once.  Look first whether the account is stolen.",
        ),
        Entry(
            "outbound_many_recipients",
            "100 recipients per message, send to the others in another one",
            "The message has more recipients than your login may write to at once.",
            "Send it in parts, or use a mailing list.",
            "`[outbound_limits] recipients_per_message`.",
        ),
        Entry(
            "recipient_null_mx",
            "example.com",
            "The recipient's domain says that it takes no mail (RFC 7505).",
            "Correct the address.",
            "If that mail goes another way than by the DNS: `[recipient_domain] exempt`.",
        ),
        Entry(
            "recipient_domain_nonexistent",
            "exmaple.com",
            "The recipient's domain does not exist.",
            "Correct the address; often it is a slip of the pen.",
            "If that mail goes another way than by the DNS: `[recipient_domain] exempt`.",
        ),
    ),
}

# What senders hear of the mail server itself.  Reply of Postfix, meaning, remedy.
NOT_OURS = (
    (
        "451 4.7.1 Service unavailable - try again later",
        (
            "authmilter can't be reached, or failed (`[milter] on_error`), and `milter_default_action = tempfail`.  Sendmail says "
            "451 4.3.2 Please try again later."
        ),
        "`systemctl status authmilter`, and the log of Postfix: `warning: connect to Milter service`",
    ),
    (
        "530 5.7.0 Must issue a STARTTLS command first",
        "The port asks for TLS (`smtpd_tls_security_level = encrypt`), as submission does.",
        "Sender: switch TLS on.  authmilter never gives 530",
    ),
    (
        "454 4.7.1 Relay access denied",
        (
            "Somebody who is not logged in writes to a domain that is not yours.  With `reject_unauth_destination` in "
            "`smtpd_relay_restrictions` it is 554 5.7.1."
        ),
        "Sender: log in.  Administrator: `relay_domains`, `mydestination`",
    ),
)

_BEFORE = {
    Stage.CONNECT: "in place of the greeting",
    Stage.HELO: "at HELO",
    Stage.MAIL: "at MAIL",
    Stage.RCPT: "at RCPT",
    Stage.DATA: "at DATA",
    Stage.EOM: "at the end of the message",
}
_TEMPORARY = ("_temperror", "_tempfail", "_exceeded")


_KIND = {
    421: "the connection is closed, come again",
    451: "come again",
    452: "too many recipients at once, send to the rest in another transaction",
    501: "an argument has no valid form",
    550: "refused",
    554: "refused: the connection, malware, or spam by its score",
    556: "the domain of the recipient takes no mail (RFC 7504)",
}


@cache
def _policies() -> Mapping[str, Policy]:
    return {
        preset: Policy(Config(policy=PolicyOptions(preset=preset)), all_checks())  # type: ignore[arg-type]
        for preset in PRESETS
    }


@cache
def _stages() -> Mapping[str, Stage]:
    """Symbol, or prefix of symbols, -> the first stage at which it may refuse."""
    stages = {**method_symbols(), **dict.fromkeys(DERIVED, Stage.EOM)}
    for one in all_checks():
        stages |= dict.fromkeys((*one.scores, *one.replies), one.judged)
    return stages


def replies(entry: Entry) -> Iterator[tuple[str, Action, Reply]]:
    """Symbol, action, and the reply that authmilter would give to a client of the example."""
    for symbol in entry.symbols.split() or [""]:
        for action in (Action.REJECT, Action.TEMPFAIL):
            for failed in (Result.NONE, Result.FAIL) if symbol.startswith("dmarc_fail") else (Result.NONE,):
                stage = _stages().get(symbol, Stage.EOM)
                full = f"{symbol}example" if symbol.endswith("_") else symbol
                yield (
                    symbol,
                    action,
                    reply_for(full, action, _example(full, entry.detail, stage, failed), stage, REFERENCE),
                )


def _example(symbol: str, detail: str, stage: Stage, failed: Result) -> Transaction:
    domain = "sender.example"
    sender = Mailbox(b"alice", domain.encode(), domain)
    recipient = Mailbox(b"user", b"example.net", "example.net")
    return Transaction(
        Connection(ip_address("192.0.2.7")),
        b"mail.sender.example",
        "mail.sender.example",
        Envelope(sender, (recipient,)),
        results=(
            AuthResult("spf_helo", failed, f"mail.{domain}"),
            AuthResult("spf", failed, domain),
            AuthResult("dmarc", failed, domain),
        ),
        findings=((stage, Finding(symbol, detail)),) if symbol else (),
    )


def _does(symbol: str) -> str:
    """What the presets do by themselves."""
    acts: dict[Action, list[str]] = {}
    for preset, policy in _policies().items():
        action = policy.common.actions.get(symbol)
        if action in (Action.REJECT, Action.TEMPFAIL):
            acts.setdefault(action, []).append(preset)
    words = {Action.REJECT: "refused", Action.TEMPFAIL: "deferred"}
    return "; ".join(f"{words[action]} by {', '.join(presets)}" for action, presets in acts.items())


def _codes(entry: Entry, action: Action) -> str:
    codes = {f"{reply.code} {reply.enhanced}": None for _, is_, reply in replies(entry) if is_ is action}
    return " or ".join(codes)


def _text(entry: Entry) -> str:
    texts = {reply.text for _, _, reply in replies(entry)}
    if len(texts) != 1:
        raise ValueError(f"several texts for {entry.symbols}: {sorted(texts)}")
    return texts.pop().removesuffix(f" [{REFERENCE}]")


def _is_temporary(entry: Entry) -> bool:
    """Is it something that is only ever deferred?"""
    first = entry.symbols.partition(" ")[0]
    if any(policy.common.actions.get(first) is Action.TEMPFAIL for policy in _policies().values()):
        return True
    return first.endswith(_TEMPORARY)


def _when(entry: Entry) -> str:
    symbols = entry.symbols.split()
    if not symbols:
        return "From a score of `[policy] reject` on, if not by the classifier alone."
    by_itself = [f"`{symbol}` is {does}" for symbol in symbols if (does := _does(symbol))]
    shown = ", ".join(f"`{symbol}NAME`" if symbol.endswith("_") else f"`{symbol}`" for symbol in symbols)
    told = "; ".join(by_itself) if by_itself else "no preset does it by itself"
    return f"Symbols: {shown}; {told}."


def _section(entry: Entry) -> Iterator[str]:
    if _is_temporary(entry):
        codes = _codes(entry, Action.TEMPFAIL)
    else:
        codes = (
            f"{_codes(entry, Action.REJECT)}; deferred, if `[scores]` says tempfail: {_codes(entry, Action.TEMPFAIL)}"
        )
    stages = {_stages().get(symbol, Stage.EOM): None for symbol in entry.symbols.split() or [""]}
    where = " or ".join(_BEFORE[stage] for stage in stages)
    yield f"### {_text(entry)}"
    yield ""
    yield from _wrap("", f"**{codes}**, {where}.  {_when(entry)}")
    yield ""
    for title, text in (("Meaning", entry.meaning), ("Sender", entry.sender), ("Administrator", entry.administrator)):
        yield from _wrap("* ", f"{title}: {text}")
    yield ""


def _wrap(mark: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, 120, initial_indent=mark, subsequent_indent=" " * len(mark), break_long_words=False, break_on_hyphens=False,
        fix_sentence_endings=False,
    )  # fmt: skip


def _plain() -> Iterator[str]:
    """What is said for symbols without words of their own."""
    name = "SYMBOL"
    for action, title in ((Action.REJECT, "refused"), (Action.TEMPFAIL, "deferred")):
        codes = {
            stage: reply_for(name, action, Transaction(), stage, REFERENCE)
            for stage in (Stage.CONNECT, Stage.MAIL, Stage.EOM)
        }
        shown = ", ".join(f"{reply.code} {reply.enhanced} {_BEFORE[stage]}" for stage, reply in codes.items())
        yield f"* {title}: {shown.replace('at MAIL', 'before the end of the message')}"


def _by_code() -> Iterator[str]:
    usual: dict[int, dict[str, None]] = {TOO_BUSY.code: {TOO_BUSY.text: None}, 451: {TOO_BUSY.text: None}}
    for entries in ENTRIES.values():
        for entry in entries:
            action = Action.TEMPFAIL if _is_temporary(entry) else Action.REJECT
            for _, is_, reply in replies(entry):
                if is_ is action:
                    usual.setdefault(reply.code, {})[_text(entry)] = None
    for code in sorted(usual):
        yield ""
        yield f"**{code}**: {_KIND[code]}."
        yield ""
        for text in usual[code]:
            yield from _wrap("* ", text)


def page() -> str:
    """The page."""
    lines = [
        "# SMTP replies of authmilter",
        "",
        "Made from the code by `contrib/docs/replies.py`; do not edit it.",
        "",
        *_wrap("", "Every reply ends in a reference in brackets, such as "
               f"`550 5.7.23 ... [{REFERENCE}]`.  The same reference is on the line of that message in the log: "
               f"`journalctl -u authmilter --grep {REFERENCE}`.  The line names the symbols that led to it.  In the texts "
               "here the client is 192.0.2.7 and the sender alice@sender.example."),
        "",
        *_wrap("", "A reply beginning with 4 refuses for now, one beginning with 5 for good.  With `[policy] enforce = no` "
               "none of them is given, but for `Too busy`.  What a preset does by itself is said at each reply, provided that "
               "the check is on; `[scores]` changes any of it.  Where we refuse a connection, Postfix and Sendmail greet with "
               "words of their own, `554 HOST ESMTP not accepting connections` or `421 HOST Service unavailable - try again later` "
               "for instance; ours are in the log."),
        "",
        "## By code",
        *_by_code(),
        "",
    ]  # fmt: skip
    for title, entries in ENTRIES.items():
        lines += [f"## {title}", ""]
        for entry in entries:
            lines += _section(entry)
    busy = TOO_BUSY
    lines += [
        "## Other replies",
        "",
        f"### {busy.text}",
        "",
        *_wrap(
            "", f"**{busy.code} {busy.enhanced}**, or 451 {busy.enhanced} with `[milter] on_overload = tempfail`.  "
        ),
        "",
        "* Meaning: this server has more connections than it can serve.",
        f"* Sender: {_LATER}",
        "* Administrator: `[milter] max_connections`, `max_waiting` and `workers`; [sizing.md](sizing.md) has figures.",
        "",
        "### Refused by policy (SYMBOL)",
        "",
        "What is said for a symbol that has no words of its own, and to which `[scores]` gives an action:",
        "",
        *_plain(),
        "",
        "The symbol is explained in authmilter.conf(5).",
        "",
        "## Replies that are not ours",
        "",
        "Without a reference in brackets it was the mail server that spoke.  The texts are those of Postfix.",
        "",
        "| reply | meaning | remedy |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in NOT_OURS),
        "",
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
