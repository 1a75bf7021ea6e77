"""Reading what others found: the payload of Authentication-Results and its ARC twin (RFC 8601 section 2.2).

The reader takes what it understands: a result that it does not know is left out, and what follows a syntax error is
ignored up to the next semicolon.  All of it is linear, and bounded in size.
"""

import re

from authmilter.addresses import comment_end, to_ascii_domain
from authmilter.auth.results_header import after_cfws
from authmilter.evidence import AuthResult, Result
from authmilter.model import Message

MAX_PAYLOAD = 16 * 1024  # octets; a longer payload is not read at all
MAX_RESULTS = 100
MAX_PROPERTIES = 30  # of one result
MAX_VALUE = 512  # characters of one value; a longer one is left out

_DIVIDER = re.compile(rb'[;"(]')
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}+")
_VERSION = re.compile(rb"[0-9]++")
_VALUE = re.compile(rb'(?:[^\s;"(]++|"(?:[^"\\]|\\.)*+")++', re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_RESULTS = {result.value: result for result in Result}
# Where each method says whose identity it authenticated, the best property first.
_IDENTITY = {
    "dkim": ("header.d", "header.i"),
    "spf": ("smtp.mailfrom", "smtp.mfrom"),  # the second was in use before RFC 7208
    "dmarc": ("header.from",),
}


def split_payload(payload: bytes) -> list[bytes]:
    """The parts between semicolons, those in comments and quotes not counted; the first part is the authserv-id.

    It ends before a part with a comment or quote that does not end.
    """
    parts: list[bytes] = []
    start = at = 0
    while divider := _DIVIDER.search(payload, at):
        at = divider.end()
        if divider[0] == b"(":
            at = comment_end(payload, divider.start())
            if not at:
                return parts
        elif divider[0] == b'"':
            quoted = _QUOTED.match(payload, divider.start())
            if quoted is None:
                return parts
            at = quoted.end()
        else:
            parts.append(payload[start : at - 1])
            start = at
    parts.append(payload[start:])
    return parts


def read_results(payload: bytes) -> tuple[AuthResult, ...]:
    """The results in a payload, in their order; never raises.

    `method` is what the writer called it, in lower case.  `identifier` is the domain that was authenticated, "" where
    the payload does not say: header.d of dkim, the domain of smtp.mailfrom of spf, header.from of dmarc.
    """
    if len(payload) > MAX_PAYLOAD:
        return ()
    found = (_read_result(part) for part in split_payload(payload)[1 : MAX_RESULTS + 1])
    return tuple(result for result in found if result is not None)


def _read_result(text: bytes) -> AuthResult | None:
    at, method, value = _read_pair(text, 0)
    result = _RESULTS.get(value.lower())
    if not method or result is None:
        return None
    properties: dict[str, str] = {}
    for _ in range(MAX_PROPERTIES):
        at, name, value = _read_pair(text, at)
        if not name:
            break
        if value:
            properties.setdefault(name, value)
    reason = properties.pop("reason", "")
    identity = next((properties[name] for name in _IDENTITY.get(method, ()) if name in properties), "")
    domain = to_ascii_domain(identity.rpartition("@")[2].rstrip(">"))  # some write a whole path
    return AuthResult(method, result, domain, properties, reason)


def _read_pair(text: bytes, at: int) -> tuple[int, str, str]:
    """The next ``name=value``: where it ends, the name in lower case, "" if there is none, and the value unquoted.

    The version of a method is passed over.  A value that is too long, or nothing that can be shown, is "".
    """
    nothing = len(text), "", ""
    at = after_cfws(text, at)
    name = _NAME.match(text, at) if at >= 0 else None
    if name is None:
        return nothing
    at = after_cfws(text, name.end())
    if at >= 0 and text[at : at + 1] == b"/":
        at = after_cfws(text, at + 1)
        version = _VERSION.match(text, at) if at >= 0 else None
        at = after_cfws(text, version.end()) if version else -1
    if at < 0 or text[at : at + 1] != b"=":
        return nothing
    at = after_cfws(text, at + 1)
    found = _VALUE.match(text, at) if at >= 0 else None
    if found is None:
        return nothing
    octets = _QUOTED.sub(lambda quoted: _QUOTED_PAIR.sub(rb"\1", quoted[1]), found[0])
    try:
        value = octets.decode()
    except UnicodeDecodeError:
        value = ""
    if len(value) > MAX_VALUE or not value.isprintable():
        value = ""
    return found.end(), name[0].decode().lower(), value


def merge_own(message: Message, authserv_id: str) -> str:
    """The results of every Authentication-Results field that bears this authserv-id, as the value of one field.

    They are put together top down, as they are written, comments and all; "" if there is no such field.  Only for mail
    from inside, since the name alone proves nothing (RFC 8601 section 5).
    """
    wanted = authserv_id.lower()
    clauses: list[str] = []
    ours = False
    for field in message.all(b"authentication-results"):
        first, *rest = split_payload(field.value[:MAX_PAYLOAD]) or [b""]
        name, *version = first.decode("ascii", "replace").split() or [""]
        if name.lower() != wanted or version not in ([], ["1"]):
            continue
        ours = True
        texts = (" ".join(part.decode("ascii", "replace").split()) for part in rest)
        # What can't be shown is left out, so that nothing of it gets into a field of ours.
        clauses += [text for text in texts if text not in ("", "none") and text.isascii() and text.isprintable()]
    if not ours:
        return ""
    return ";\n\t".join([authserv_id, *(clauses[:MAX_RESULTS] or ["none"])])
