"""DKIM signatures for mail that we send (RFC 6376 section 5, RFC 8301, RFC 8463)."""

from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from authmilter.addresses import to_ascii_domain
from authmilter.auth.canonical import HEADER
from authmilter.auth.keys import LoadedKey, PrivateKey, key_name, read_private_key
from authmilter.config.schema import Sign
from authmilter.errors import AuthMilterError, ConfigError
from authmilter.model import BodyHashKey, HeaderField, Message
from authmilter.verdict import HeaderEdit

MAX_SIGNED_FIELDS = 1000  # names in one h=; more is no mail that anybody wrote
MIN_RSA_BITS = 1024  # RFC 8301 section 3.2: signers MUST use 1024 at least
GOOD_RSA_BITS = 2048  # and SHOULD use 2048 at least
_FIELD = "DKIM-Signature"
_LINE = 70  # octets after the TAB, which counts as 8 columns: 78 in all (RFC 5322 section 2.1.1)
# Where a message comes without them, servers behind us add these (RFC 6409 sections 8.2 and 8.3); Sendmail does so itself,
# after it has shown us the message.
_ADDED_LATER = frozenset((b"date", b"message-id"))
_FIELD_NAME = bytes(c for c in range(33, 127) if c not in b":;")  # RFC 5322 section 3.6.8; ";" would end h=

# Names of fields to sign: as written in h=, in lower case, and whether it is listed once more than it is there.
FieldNames = tuple[tuple[str, bytes, bool], ...]


class SigningError(AuthMilterError):
    """The message can't be signed; the text says why."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the selector of its public half; `algorithm` is ``rsa-sha256`` or ``ed25519-sha256``.

    `since` is when it was loaded, in seconds since 1970.
    """

    selector: str
    algorithm: str
    key: PrivateKey
    since: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """How a message is to be signed.

    `section` is the name of the [sign] section, `domain` becomes d=.  Without `keys` the message is not signed, and
    `reason` says why, for the log.
    """

    reason: str = ""
    section: str = ""
    domain: str = ""
    keys: tuple[SigningKey, ...] = ()


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    options: Sign
    keys: tuple[SigningKey, ...]
    header: str  # canonicalisation of the header
    body: BodyHashKey
    names: FieldNames


class Signer:
    """Signs outgoing mail with the keys of the [sign] sections.

    `warnings` are lines for the administrator about what works but ought to be changed.
    """

    def __init__(self, sections: Mapping[str, _Section], warnings: Sequence[str] = ()) -> None:
        self._sections = sections
        self.warnings = tuple(warnings)

    @classmethod
    def load(cls, sections: Mapping[str, Sign]) -> "Signer":
        """Read all keys, once: call it before privileges are dropped.

        `sections` maps a domain, ``*.domain`` or ``*``, in lower-case A-labels, to its options.  Raises ConfigError with
        every problem found, each as ``[sign NAME] what is wrong``.
        """
        problems: list[str] = []
        warnings: list[str] = []
        loaded = {}
        load = cache(read_private_key)  # sections often share a key, and an RSA key takes 60 ms
        for name, section in sections.items():
            options = replace(section, domain=to_ascii_domain(section.domain))
            found = list(_problems(name, section))
            keys = []
            for key, complaint in _load_keys(options, load):
                if key is not None:
                    keys.append(key)
                if complaint and key is None:
                    found.append(complaint)
                elif complaint:
                    warnings.append(f"[sign {name}] {complaint}")
            problems += [f"[sign {name}] {problem}" for problem in found]
            header, _, body = options.canonicalization.partition("/")
            loaded[name] = _Section(
                name,
                options,
                tuple(keys),
                header,
                BodyHashKey(body, None),
                field_names(options.headers, options.oversign),
            )
        if problems:
            raise ConfigError(problems)
        return cls(loaded, warnings)

    def choose(self, author_domains: Sequence[str]) -> Choice:
        """By which section to sign mail of these author domains (lower-case A-labels); the first that has one counts.

        The most specific section wins: that of the domain itself; then, for each parent from the longest to the
        shortest, ``*.parent``, or the section of the parent if its `subdomains` is own or parent; then ``*``.
        """
        if not author_domains:
            return Choice("no author domain")
        refused = ""
        for author in author_domains:
            section, domain = self._find(author)
            if section is None:
                continue
            if not domain or not section.keys:
                refused = refused or f"[sign {section.name}] leaves {author} out"
            elif "." not in domain:  # RFC 6376 section 3.5: d= has two labels at least
                refused = refused or f"{domain} can't be a signing domain"
            else:
                return Choice("", section.name, domain, section.keys)
        return Choice(refused or f"no [sign] section for {', '.join(author_domains[:3])}")

    def published_keys(self) -> list[tuple[str, str, SigningKey]]:
        """Section, d= and key of all that signs.

        d= is "" where it is that of the author, and so not one name; of a section that takes subdomains in under their own
        names it is that of the section itself.
        """
        found = []
        for name, section in self._sections.items():
            if name.startswith("*") and section.options.subdomains == "no":
                continue
            domain = section.options.domain
            if not domain and not name.startswith("*"):
                domain = name
            elif not domain and section.options.subdomains == "parent":
                domain = name.removeprefix("*.")
            found += [(name, domain, key) for key in section.keys]
        return found

    def body_hash_keys(self, choice: Choice) -> set[BodyHashKey]:
        """The hashes of the body that `sign` will need."""
        return {self._sections[choice.section].body} if choice.keys else set()

    def sign(self, choice: Choice, message: Message, now: float, left_out: Collection[bytes] = ()) -> list[HeaderEdit]:
        """One DKIM-Signature for each key, to be inserted in this order: that of the RSA key ends up on top.

        `message.body_hashes` must hold `body_hash_keys(choice)`, of the whole body; `now` is in seconds since the epoch.
        `left_out` are lower-case names of fields that are not signed, whatever the options say.
        Raises SigningError if the message was not examined whole, or has too many fields to sign.
        """
        if not choice.keys:
            return []
        section = self._sections[choice.section]
        body_hash = message.body_hashes.get(section.body)
        if body_hash is None or message.oversized:
            raise SigningError(f"not examined whole: {message.oversized or 'body'}")
        names, fields = signed_fields(section.names, message, left_out)
        canonical = HEADER[section.header]
        signed = b"".join(map(canonical, fields))
        times = [f" t={int(now)};"]
        if section.options.expire:
            times.append(f" x={int(now) + max(1, int(section.options.expire))};")
        edits = []
        for key in choice.keys:
            value = fold(
                _FIELD,
                "v=1;",
                f" a={key.algorithm};",
                f" c={section.options.canonicalization};",
                f" d={choice.domain};",
                f" s={key.selector};",
                *times,
                f" h={names[0]}",
                *names[1:],
                f" bh={b64encode(body_hash.digest).decode()};",
                " b=",
            )
            # What is signed is the field as the MTA will send it: a blank after the colon, folds with CRLF, b= empty.
            field = HeaderField(_FIELD.encode(), b" " + value.replace("\n", "\r\n").encode())
            octets = make_signature(key.key, signed + canonical(field).removesuffix(b"\r\n"))
            edits.append(HeaderEdit("insert", 0, _FIELD, _append(value, b64encode(octets).decode())))
        return edits

    def _find(self, author: str) -> tuple[_Section | None, str]:
        """The section for an author domain, None if there is none; and d=, "" if the section says not to sign."""
        section = self._sections.get(author)
        if section:
            return section, section.options.domain or author
        parent = author
        while "." in parent:
            parent = parent.partition(".")[2]
            section = self._sections.get(f"*.{parent}")
            if section is None:
                section = self._sections.get(parent)
                if section is None or section.options.subdomains not in ("own", "parent"):
                    continue
            return section, _wildcard_domain(section.options, author, parent)
        section = self._sections.get("*")
        return section, _wildcard_domain(section.options, author, "") if section else ""


def _wildcard_domain(options: Sign, author: str, parent: str) -> str:
    if options.subdomains == "no":
        return ""
    return options.domain or (parent if options.subdomains == "parent" else author)


# -- making a signature ------------------------------------------------------------------------------------------------


def signed_fields(
    wanted: FieldNames, message: Message, left_out: Collection[bytes] = ()
) -> tuple[list[str], list[HeaderField]]:
    """The parts of h=, each with the colon or semicolon after it, and the fields that it names, in its order.

    Those in `left_out`, lower-case names, are not among them.  Raises SigningError if there are too many.
    """
    names: list[str] = []
    fields: list[HeaderField] = []
    index = message.index
    for name, key, oversigned in wanted:
        if key in left_out:
            continue
        # RFC 6376 section 5.4.2: several fields of a name are signed from the bottom up.
        for position in reversed(index.get(key, ())):
            names.append(name)
            fields.append(message.fields[position])
        # RFC 6376 section 5.4: a name listed once more than it is there keeps further fields out.
        if oversigned and (key in index or key not in _ADDED_LATER):
            names.append(name)
    if len(names) > MAX_SIGNED_FIELDS:
        raise SigningError(f"over {MAX_SIGNED_FIELDS} header fields to sign")
    return [f"{name}:" for name in names[:-1]] + [f"{names[-1]};"], fields


def make_signature(key: PrivateKey, data: bytes) -> bytes:
    """The octets of b= over what is signed."""
    if isinstance(key, RSAPrivateKey):
        return key.sign(data, PKCS1v15(), SHA256())
    return key.sign(sha256(data).digest())  # RFC 8463 section 3


def fold(name: str, *parts: str) -> str:
    """Put the parts of a value together, with a fold before each that would make the line too long.

    A blank that the part begins with gives way to the fold.  `name` is that of the field, "" if the value begins a line.
    """
    lines = []
    line = " " * len(name)  # what stands before the value, one octet less than with ": "
    for part in parts:
        if len(line) + len(part) > _LINE:
            lines.append(line)
            line = part.lstrip(" ")
        else:
            line += part
    return "\n\t".join([*lines, line])[len(name) :]


def _append(value: str, text: str) -> str:
    """Add text that may be cut anywhere."""
    room = max(0, _LINE - len(value.rpartition("\t")[2]))
    rest = [text[i : i + _LINE] for i in range(room, len(text), _LINE)]
    return "\n\t".join([value + text[:room], *rest])


# -- reading the configuration -----------------------------------------------------------------------------------------


def field_names(headers: Sequence[str], oversign: Sequence[str]) -> FieldNames:
    """What to sign: all of `headers` and `oversign`, in that order, those of `oversign` once more than they are there."""
    oversigned = {name.lower() for name in oversign}
    unique = {name.lower(): name for name in (*reversed(oversign), *reversed(headers))}
    ordered = dict.fromkeys(name.lower() for name in (*headers, *oversign))
    return tuple((unique[key], key.encode(), key in oversigned) for key in ordered)


def _problems(name: str, options: Sign) -> Iterable[str]:
    """What is wrong with a section, key files left out."""
    domain = name.removeprefix("*.")
    if name != "*" and (not domain or to_ascii_domain(domain) != domain):
        yield "the name of the section is no domain, *.domain or *"
    if options.domain and not to_ascii_domain(options.domain):
        yield f"domain: {options.domain!r} is no domain"
    pairs = (
        ("", options.selector, options.key_file),
        ("ed25519_", options.ed25519_selector, options.ed25519_key_file),
    )
    for prefix, selector, key_file in pairs:
        if selector and not key_file:
            yield f"{prefix}selector needs {prefix}key_file"
        if key_file and not selector:
            yield f"{prefix}key_file needs {prefix}selector"
        if selector and key_name(selector, "example.org") != f"{selector.lower()}._domainkey.example.org":
            yield f"{prefix}selector: {selector!r} is no selector"
    if options.selector and options.selector.lower() == options.ed25519_selector.lower():
        yield "selector and ed25519_selector are the same: each key needs its own record"
    if not any(selector or key_file for _, selector, key_file in pairs) and options.subdomains != "no":
        yield "has no key: give selector and key_file"
    if name == "*" and options.subdomains == "parent" and not options.domain:
        yield "subdomains = parent needs a domain here"
    signed = {header.lower() for header in options.headers + options.oversign}
    if "from" not in signed:
        yield "headers: From must be signed (RFC 6376 section 5.4)"
    for header in sorted(signed):
        if not header or not header.isascii() or header.encode().translate(None, _FIELD_NAME):
            yield f"headers, oversign: {header!r} is no name of a header field"


def _load_keys(options: Sign, load: Callable[[str], LoadedKey]) -> Iterable[tuple[SigningKey | None, str]]:
    """Each key with what is to be said against it; None for one that can't be used."""
    # The Ed25519 signature is inserted first, so the RSA one, which more verifiers know, stands above it.
    if options.ed25519_key_file:
        try:
            key, since = load(options.ed25519_key_file)
        except ValueError as error:
            yield None, f"ed25519_key_file: {error}"
        else:
            if isinstance(key, Ed25519PrivateKey):
                yield SigningKey(options.ed25519_selector, "ed25519-sha256", key, since), ""
            else:
                yield None, f"ed25519_key_file: {options.ed25519_key_file}: holds an RSA key, which goes to key_file"
    if options.key_file:
        try:
            key, since = load(options.key_file)
        except ValueError as error:
            yield None, f"key_file: {error}"
            return
        if not isinstance(key, RSAPrivateKey):
            yield None, f"key_file: {options.key_file}: holds an Ed25519 key, which goes to ed25519_key_file"
        elif key.key_size < MIN_RSA_BITS:
            yield (
                None,
                f"key_file: {options.key_file}: {key.key_size} bits are too few (RFC 8301 asks for 1024 at least)",
            )
        else:
            small = key.key_size < GOOD_RSA_BITS
            yield (
                SigningKey(options.selector, "rsa-sha256", key, since),
                f"key_file: {options.key_file}: {key.key_size} bits are few (RFC 8301 advises 2048)" if small else "",
            )
