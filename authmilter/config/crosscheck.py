"""What single options can't tell: options that contradict each other, and what the machine must have.

An option that can't be read has its default here, and thus no part in a contradiction.
"""

import grp
import os
import pwd
import shlex
from importlib.util import find_spec
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

from authmilter.config.endpoint import parse_socket
from authmilter.config.option import Seconds, Size, kind_of, shown, suggestion
from authmilter.config.report import Report
from authmilter.config.schema import Config, DnsList, Dnswl, Policy, RecipientPolicy, Sign, Weight
from authmilter.errors import ConfigError
from authmilter.model import Direction
from authmilter.verdict import Action

_THRESHOLDS = ("tag", "quarantine", "reject")
_LEAST_RECIPIENTS = 100  # RFC 5321 section 4.5.3.1.8: who refuses fewer violates it
# Sections of the checks that remember earlier mail.
_KEEP_STATE = ("greylist", "reputation", "correspondents", "connections", "sender_rate", "outbound_limits")
_RELAYS_CHANGE = frozenset(("return-path", "received", "dkim-signature", "authentication-results", "bcc"))


def crosscheck(config: Config, report: Report, *, check_files: bool) -> None:
    """Report what does not fit together; `check_files` also looks at key and map files, users and groups."""
    _milter(config, report)
    if check_files and os.geteuid() == 0:
        _accounts(config, report)
    _networks(config, report)
    _thresholds("policy", config.policy, config.policy_set, report)
    if config.policy.skip:
        _skipped(config, report)
    for name, policy in config.recipient_policies.items():
        _thresholds(f"policy {name}", policy, policy.given, report)
    _submission(config, report, check_files=check_files)
    for name, allow in config.allow.items():
        if not (allow.requires or allow.networks or allow.insecure):
            report.error(
                f"allow {name}",
                "",
                "says nothing that authenticates the sender, and anybody can write this From: set requires or networks "
                "(or, knowing that, insecure = yes)",
            )
    _sealing(config, report, check_files=check_files)
    _alarm(config, report, check_files=check_files)
    _lists(config, report, check_files=check_files)
    _scores(config, report)
    _observed(config, report)
    _recipients(config, report)
    _state(config, report)
    _classifier(config, report)
    _scanners(config, report, check_files=check_files)
    _attachments(config, report, check_files=check_files)
    if check_files:
        _store(config, report)
    for pattern, sign in config.sign.items():
        title = f"sign {pattern}"
        if title not in report.broken:  # a misspelt `key_file` is no missing one
            _sign(title, pattern, sign, report)
        if check_files:
            _keys(title, sign, report)


def _sealing(config: Config, report: Report, *, check_files: bool) -> None:
    arc = config.arc
    for option in ("seal_domain", "seal_selector", "seal_key_file"):
        if arc.seal != "no" and not getattr(arc, option):
            report.error("arc", "seal", f"seal = {arc.seal} needs {option}")
    if check_files and arc.seal_key_file:
        from authmilter.auth.keys import load_private_key

        try:
            load_private_key(arc.seal_key_file)
        except ValueError as error:
            report.error("arc", "seal_key_file", str(error))


def _milter(config: Config, report: Report) -> None:
    milter = config.milter
    if not milter.socket:
        report.error("milter", "socket", "socket: is empty; without one no MTA can connect")
    for socket in {s for s in milter.socket if milter.socket.count(s) > 1}:
        report.error("milter", "socket", f"socket: {socket!r} is there twice")
    if milter.engine == "libmilter" and len(milter.socket) > 1:
        report.error("milter", "socket", "socket: engine = libmilter takes one socket only")
    for text in milter.socket:
        address = parse_socket(text)
        if address.family != "unix" and _everywhere(address.host):
            report.warn("milter", "socket", f"{text!r} lets everyone who reaches this machine have mail signed")
    if milter.socket_mode & 0o002:
        report.warn("milter", "socket_mode", "every user of this machine can have mail signed")
    if milter.command_timeout > 30:
        report.warn("milter", "command_timeout", "Postfix waits 30s unless milter_command_timeout is raised too")
    if milter.message_timeout > 300:
        report.warn("milter", "message_timeout", "Postfix waits 300s unless milter_content_timeout is raised too")


def _everywhere(host: str) -> bool:
    try:
        return not host or ip_address(host).is_unspecified
    except ValueError:
        return False


def _accounts(config: Config, report: Report) -> None:
    milter = config.milter
    for option, name, what, lookup in (
        ("user", milter.user, "user", pwd.getpwnam),
        ("group", milter.group, "group", grp.getgrnam),
        ("socket_group", milter.socket_group, "group", grp.getgrnam),
    ):
        try:
            if name:
                lookup(name)
        except KeyError:
            report.error("milter", option, f"{option}: there is no {what} {name!r}")


def _networks(config: Config, report: Report) -> None:
    for option in ("internal", "trusted_relays"):
        if any(network.prefixlen == 0 for network in getattr(config.networks, option)):
            effect = "is signed, not verified" if option == "internal" else "may bring its own results"
            report.warn("networks", option, f"{option}: mail of the whole Internet {effect}")


def _thresholds(title: str, policy: Policy | RecipientPolicy, given: frozenset[str], report: Report) -> None:
    """Only what this section sets: a lower `reject` need not drag `tag` along."""
    limits = [(name, getattr(policy, name)) for name in _THRESHOLDS if name in given]
    for (lower, low), (higher, high) in pairwise([limit for limit in limits if limit[1] is not None]):
        if low > high:
            report.error(title, lower, f"{lower}: {low:g} is over {higher} = {high:g}, so it would never be reached")


def _submission(config: Config, report: Report, *, check_files: bool) -> None:
    path = config.submission.map_file
    if not path:
        return
    if config.submission.from_must_match == "off":
        report.warn("submission", "map_file", "map_file: has no effect while from_must_match = off")
    if check_files:
        from authmilter import submission  # like the keys below: only for those who use it

        _absolute("submission", "map_file", path, report)
        try:
            submission.load(config)
        except ConfigError as error:
            for problem in error.problems:
                report.error("submission", "map_file", f"map_file: {problem}")


def _absolute(title: str, option: str, path: str, report: Report) -> None:
    if not os.path.isabs(path):
        report.warn(title, option, f"{option}: which file {path!r} is depends on the directory of the start")


def _sign(title: str, pattern: str, sign: Sign, report: Report) -> None:
    for selector, key_file in (("selector", "key_file"), ("ed25519_selector", "ed25519_key_file")):
        if getattr(sign, selector) and not getattr(sign, key_file):
            report.error(title, selector, f"{selector}: needs {key_file}")
        if getattr(sign, key_file) and not getattr(sign, selector):
            report.error(title, key_file, f"{key_file}: needs {selector}")
    if sign.selector and sign.selector.lower() == sign.ed25519_selector.lower():
        # RFC 6376 section 3.6.2.2: what several key records under one name mean is undefined
        report.error(title, "ed25519_selector", "ed25519_selector: must differ from selector")
    if "from" not in {name.lower() for name in sign.headers}:
        report.error(title, "headers", "headers: From must be signed (RFC 6376 section 5.4)")
    for option in ("headers", "oversign"):
        for name in getattr(sign, option):
            if name.lower() in _RELAYS_CHANGE:  # RFC 6376 section 5.4.1
                report.warn(title, option, f"{option}: {name} changes on its way and breaks the signature")
    if not sign.key_file and not sign.ed25519_key_file:
        report.warn(title, "", "there is no key, so this mail is not signed")
    elif not sign.key_file:
        report.warn(title, "ed25519_selector", "many receivers ignore Ed25519; sign with an RSA key too (RFC 8463)")
    author = pattern.removeprefix("*.")
    if sign.domain and author != "*" and not _related(sign.domain, author):
        report.warn(title, "domain", f"domain: {sign.domain} is not aligned with {author}, so DMARC won't count it")


def _related(one: str, other: str) -> bool:
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _recipients(config: Config, report: Report) -> None:
    most = getattr(config.checks.get("recipients"), "max_per_message", 0)
    if 0 < most < _LEAST_RECIPIENTS:
        report.warn(
            "recipients",
            "max_per_message",
            f"max_per_message: {most} is below {_LEAST_RECIPIENTS}, to which every client may send at once "
            "(RFC 5321 section 4.5.3.1.8)",
        )


def _classifier(config: Config, report: Report) -> None:
    """What was learned may be wrong: it should not refuse mail alone, nor learn spam alone."""
    from authmilter.check import all_checks

    check = next((one for one in all_checks() if one.name == "classifier"), None)
    options: Any = config.checks.get("classifier")
    if check is None or (options is not None and not options.enabled):
        return
    titles = [("scores", config.policy.reject, config.scores)]
    for name, scores in config.recipient_scores.items():
        policy = config.recipient_policies.get(name)
        reject = policy.reject if policy is not None and "reject" in policy.given else config.policy.reject
        titles.append((f"scores {name}", reject, {**config.scores, **scores}))
    for title, reject, scores in titles:
        given = [symbol for symbol in check.scores if symbol in scores]
        weights = [scores.get(symbol, weight) for symbol, weight in check.scores.items()]
        acts = any(isinstance(weight, Action) and weight not in (Action.ACCEPT, Action.TAG) for weight in weights)
        most = sum(weight for weight in weights if not isinstance(weight, Action) and weight > 0)
        if given and (acts or (reject is not None and most >= reject)):
            report.warn(title, given[0], "lets the classifier refuse mail that nothing else speaks against")
    if options is None:
        return
    if "classifier" not in report.broken and options.enough_ham <= options.minimum_ham:
        report.warn("classifier", "enough_ham", "enough_ham: has no effect unless it is over minimum_ham")
    memories = [getattr(config.checks.get(name), "enabled", False) for name in ("correspondents", "reputation")]
    if options.auto_learn and not any(memories):
        report.warn(
            "classifier", "auto_learn", "auto_learn: learns no ham without [correspondents] or [reputation] enabled"
        )


def _skipped(config: Config, report: Report) -> None:
    from authmilter.check import CONTENT, all_checks

    names = [CONTENT, *(check.name for check in all_checks())]
    for name in config.policy.skip:
        if name not in names:
            report.error("policy", "skip", f"skip: there is no check {shown(name)}{suggestion(name, names)}")


def _scanners(config: Config, report: Report, *, check_files: bool) -> None:
    """What clamd, spamd and rspamd are to see of a message, and for how long, must be there."""
    kept = config.milter.scan_size
    half = config.milter.message_timeout / 2
    for title, address in (("antivirus", "clamd"), ("spamassassin", "socket"), ("rspamd", "url")):
        options: Any = config.checks.get(title)
        if options is None or not getattr(options, address):
            continue
        if options.max_size > kept or not kept:
            report.warn(
                title,
                "max_size",
                f"max_size: of a body [milter] scan_size = {kind_of(Size).write(kept)} is all that is kept; raise that too",
            )
        if options.timeout > half:
            report.warn(
                title,
                "timeout",
                f"timeout: no more than {kind_of(Seconds).write(half)} of it is used, half of [milter] message_timeout",
            )
        password_file: str = getattr(options, "password_file", "")
        if check_files and password_file:
            _absolute(title, "password_file", password_file, report)
            try:
                options.password  # noqa: B018  read while we may still be root, and kept
            except ValueError as error:
                report.error(title, "password_file", f"password_file: {error}")


def _attachments(config: Config, report: Report, *, check_files: bool) -> None:
    options: Any = config.checks.get("attachments")
    if options is not None:
        for option in ("dangerous", "reject"):
            both = [extension for extension in getattr(options, option) if extension in options.harmless]
            if both:
                effect = "has no effect there" if option == "dangerous" else "is refused all the same"
                report.warn("attachments", option, f"{option}: {', '.join(both)} is in harmless too, and {effect}")
    macros: Any = config.checks.get("macros")
    if check_files and macros is not None and macros.enabled and not find_spec("oletools"):
        report.warn("macros", "enabled", "enabled: finds nothing without oletools: pip install 'authmilter[macros]'")


def _state(config: Config, report: Report) -> None:
    if config.store.url != "memory:" or config.milter.workers == 1:
        return
    from authmilter.check import all_checks

    enabled = {check.run.__module__.rpartition(".")[2] for check in all_checks() if check.enabled(config)}
    remembering = ", ".join(f"[{name}]" for name in _KEEP_STATE if name in enabled)
    if remembering:
        report.warn(
            "store",
            "url",
            f"url: memory: is not shared: for {remembering} each worker has its own state; take sqlite:, or set [milter] "
            "workers = 1",
        )


def _store(config: Config, report: Report) -> None:
    from authmilter.store import load_password

    store = config.store
    for option, path in (("password_file", store.password_file), ("ca_file", store.ca_file)):
        if path:
            _absolute("store", option, path, report)
    try:
        load_password(store.password_file)
    except ValueError as error:
        report.error("store", "password_file", f"password_file: {error}")
    if store.ca_file and not os.access(store.ca_file, os.R_OK):
        report.error("store", "ca_file", f"ca_file: {store.ca_file}: can't be read")


def _alarm(config: Config, report: Report, *, check_files: bool) -> None:
    alarm = config.alarm
    if alarm.events and not (alarm.command or alarm.webhook):
        report.warn("alarm", "events", "events: has no effect without command or webhook")
    if check_files and alarm.command:
        program = shlex.split(alarm.command)[0]
        if not (os.path.isfile(program) and os.access(program, os.X_OK)):
            report.error("alarm", "command", f"command: {program}: can't be run")


def _lists(config: Config, report: Report, *, check_files: bool) -> None:
    from authmilter import lists

    yielded: dict[str, str] = {}  # symbol -> title of the section
    for kind, name, section in lists.titles(config):
        title = f"{kind} {name}"
        if not section.zone and title not in report.broken:
            report.error(title, "", "needs a zone to ask in")
        _list_weights(title, section, report)
        for symbol in lists.symbols(kind, name, section):
            if symbol in yielded:
                report.error(title, "answers", f"{symbol} is a symbol of [{yielded[symbol]}] already")
            yielded[symbol] = title
        whole = f"{kind}_{name}"
        if whole in config.scores and any(item.weight is not None for item in section.answers):
            report.warn(
                "scores", whole, f"{whole}: goes for all answers of [{title}], also those with a weight of their own"
            )
        if check_files and section.key_file:
            _absolute(title, "key_file", section.key_file, report)
            try:
                lists.load_key(section.key_file)
            except ValueError as error:
                report.error(title, "key_file", f"key_file: {error}")


def _list_weights(title: str, section: DnsList, report: Report) -> None:
    seen: set[str] = set()
    for item in section.answers:
        if item.text in seen:
            report.error(title, "answers", f"answers: {item.text} is there twice")
        seen.add(item.text)
    weights: list[tuple[str, Weight]] = [("score", section.score)]
    weights += [("answers", item.weight) for item in section.answers if item.weight is not None]
    welcomes = isinstance(section, Dnswl)
    for option, weight in weights:
        if isinstance(weight, Action):
            if welcomes is not (weight is Action.ACCEPT):
                form = "a number or accept" if welcomes else "a number, or an action other than accept"
                report.error(
                    title, option, f"{option}: {weight.value} is not for this kind of list, which takes {form}"
                )
        elif weight and welcomes is (weight > 0):
            report.warn(
                title, option, f"{option}: {weight:g} counts {'against' if welcomes else 'in favour of'} who is listed"
            )


def _scores(config: Config, report: Report) -> None:
    """Symbols that another configuration would have: their list may have been taken out, or not be there yet."""
    from authmilter.check import all_checks, known_symbols

    known = {*known_symbols(), *(symbol for check in all_checks() for symbol in check.symbols(config))}
    for title, scores in (("scores", config.scores), *((f"scores {n}", s) for n, s in config.recipient_scores.items())):
        for symbol in scores:
            if symbol not in known:
                report.warn(title, symbol, f"no check yields {symbol!r}")


def _observed(config: Config, report: Report) -> None:
    """Checks that were switched on and can do nothing but act, which the preset observe keeps them from."""
    from authmilter.check import all_checks

    if {config.policy.preset, *(policy.preset for policy in config.recipient_policies.values())} - {"", "observe"}:
        return
    named = {*config.scores, *(symbol for scores in config.recipient_scores.values() for symbol in scores)}
    for check in all_checks():
        if check.options is None or check.direction is not Direction.INBOUND or not check.enabled(config):
            continue
        symbols = check.symbols(config)
        actions = [f"{symbol} = {w.value}" for symbol, w in symbols.items() if isinstance(w, Action)]
        if len(actions) == len(symbols) and named.isdisjoint(symbols):
            report.warn(
                check.name,
                "",
                f"has no effect with [policy] preset = observe, unless [scores] says {' or '.join(actions)}",
            )


def _keys(title: str, sign: Sign, report: Report) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from authmilter.auth.keys import load_private_key

    for option, path, wanted, name in (
        ("key_file", sign.key_file, RSAPrivateKey, "RSA"),
        ("ed25519_key_file", sign.ed25519_key_file, Ed25519PrivateKey, "Ed25519"),
    ):
        if not path:
            continue
        _absolute(title, option, path, report)
        try:
            key = load_private_key(path)
        except ValueError as error:
            report.error(title, option, f"{option}: {error}")
        else:
            if not isinstance(key, wanted):
                report.error(title, option, f"{option}: {path}: is not an {name} key")
            elif isinstance(key, RSAPrivateKey) and key.key_size < 1024:
                # RFC 8301 section 3.2: signers MUST use at least 1024 bits
                report.error(title, option, f"{option}: {path}: {key.key_size} bits are too few: use 2048 (RFC 8301)")
            elif isinstance(key, RSAPrivateKey) and key.key_size < 2048:
                # RFC 8301 section 3.2: signers SHOULD use at least 2048 bits
                report.warn(title, option, f"{option}: the key has {key.key_size} bits; use 2048 (RFC 8301)")
