"""Adding a set to an Authenticated Received Chain, for mail that is forwarded (RFC 8617 section 5.1)."""

from base64 import b64encode
from collections.abc import Collection, Sequence

from authmilter.auth.arc import AAR, AMS, AS, MAX_SETS, ArcResult, Chain, set_forms
from authmilter.auth.canonical import relaxed_field
from authmilter.auth.signature import FieldForms
from authmilter.auth.signing import SigningError, SigningKey, field_names, fold, make_signature, signed_fields
from authmilter.errors import ConfigError
from authmilter.evidence import Result
from authmilter.model import BodyHashKey, HeaderField, Message
from authmilter.verdict import HeaderEdit

_STATUS = {Result.NONE: "none", Result.PASS: "pass", Result.FAIL: "fail"}
_NEVER_SIGNED = {"authentication-results", AAR.lower(), AMS.lower(), AS.lower()}
# Characters of b= on a line.  The public test suite of ARC has all of a 1024-bit signature on one line, and since a seal
# covers b= of the message signature with its blanks, the same chain comes out only without folds.  The limit is that of
# RFC 5322 section 2.1.1, 998, and nobody's key needs more than one fold.
_LINE = 900


class Sealer:
    """Seals as `domain` with one key.

    `headers` are the fields that the message signature covers, `oversign` those that are listed once more than they are
    there; DKIM-Signature should be among them (RFC 8617 section 4.1.2).  Raises ConfigError if From is not, or if there
    is one that must not be.
    """

    body_hash_key = BodyHashKey("relaxed", None)  # the hash of the body that `seal` needs

    def __init__(self, domain: str, key: SigningKey, headers: Sequence[str], oversign: Sequence[str] = ()) -> None:
        names = {name.lower() for name in (*headers, *oversign)}
        # RFC 8617 section 4.1.2: later hosts take Authentication-Results away, and the seal covers the ARC fields.
        problems = [f"headers: {name} must not be signed by ARC" for name in sorted(names & _NEVER_SIGNED)]
        if "from" not in names:
            problems.append("headers: From must be signed (RFC 6376 section 5.4)")
        if problems:
            raise ConfigError(problems)
        self.domain = domain
        self.key = key
        self._names = field_names(headers, oversign)

    def seal(
        self,
        chain: Chain,
        validated: ArcResult,
        message: Message,
        results: str,
        now: float,
        left_out: Collection[bytes] = (),
    ) -> tuple[HeaderEdit, ...]:
        """The next set, as three fields to be inserted in this order: the seal ends up on top.

        `chain` and `validated` are what `parse_chain` and `verify` made of the message; `results` is the value of our
        Authentication-Results, arc= included.  `message` is as it is to be sent on, with `body_hash_key` among its
        hashes; `now` is in seconds since the epoch.  `left_out` are lower-case names of fields that are not covered, whatever
        the options say.

        A chain that fails is sealed with cv=fail, once, which ends it.  Raises SigningError, with the reason, where
        nothing must be added: the chain has ended already, has 50 sets, or it is not known whether it passes.
        """
        status = _STATUS.get(validated.result.result)
        if status is None or (status == "none") is chain.present:
            # A later host may find out, if we leave the chain alone.
            raise SigningError(f"the chain can't be validated: {validated.result.reason}")
        if chain.ended:  # RFC 8617 section 5.1.2
            raise SigningError("the chain has ended with cv=fail")
        instance = chain.last_instance + 1
        if instance > MAX_SETS:  # RFC 8617 section 4.2.1
            raise SigningError(f"the chain has {MAX_SETS} sets")
        body_hash = message.body_hashes.get(self.body_hash_key)
        if body_hash is None or message.oversized:
            raise SigningError(f"not examined whole: {message.oversized or 'body'}")

        aar = f"i={instance}; {results}"
        names, fields = signed_fields(self._names, message, left_out)
        end = f"i={instance}; s={self.key.selector}; t={int(now)}"
        ams = self._signed(
            AMS,
            b"".join(map(relaxed_field, fields)),
            f"bh={b64encode(body_hash.digest).decode()}; c=relaxed/relaxed;",
            f"d={self.domain};",
            fold("", f"h={names[0]}", *names[1:]),
            end,
        )
        own = [relaxed_field(_field(AAR, aar)), relaxed_field(_field(AMS, ams))]
        seal = self._signed(
            AS, b"".join(self._earlier(chain, status, message) + own), f"cv={status};", f"d={self.domain};", end
        )
        return tuple(HeaderEdit("insert", 0, name, value) for name, value in ((AAR, aar), (AMS, ams), (AS, seal)))

    def _earlier(self, chain: Chain, status: str, message: Message) -> list[bytes]:
        """What the seal covers of the chain before it."""
        if status == "fail":
            return []  # RFC 8617 section 5.1.2: of a failed chain only the own set is sealed, as if there were no other
        forms: FieldForms = {}
        return [form for arc_set in chain.sets for form in set_forms(arc_set, message, forms)]

    def _signed(self, name: str, data: bytes, *lines: str) -> str:
        """The value of a field that signs `data` and itself; tags in alphabetical order, a= and b= first."""
        unsigned = "\n ".join((f"a={self.key.algorithm};", "b=;", *lines))
        signed = data + relaxed_field(_field(name, unsigned)).removesuffix(b"\r\n")
        text = "b=" + b64encode(make_signature(self.key.key, signed)).decode()
        pieces = "\n ".join(text[i : i + _LINE] for i in range(0, len(text), _LINE))
        # White space within b= is no part of it, and each fold counts as one blank: so it may be put in afterwards.
        return unsigned.replace("b=;", f"{pieces};", 1)


def _field(name: str, value: str) -> HeaderField:
    """The field as the MTA will send it."""
    return HeaderField(name.encode(), b" " + value.replace("\n", "\r\n").encode())
