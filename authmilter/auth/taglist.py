"""Tag lists, ``name=value; name=value``: the syntax of DKIM-Signature and of key records (RFC 6376 section 3.2)."""

import binascii
import re

_MAX_TAGS = 100  # a signature has about a dozen

# VALCHAR with "=", ";" and WSP; RFC 8616 section 3 adds UTF-8 to the values, judged where a value is used.
_ALLOWED = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_FWS = b" \t\r\n"
_NO_FOLD = re.compile(rb"\r(?!\n[ \t])")


class TagError(ValueError):
    """A tag list, or the value of a tag, breaks its grammar; the text says how, without quoting the input."""


def parse_tags(text: bytes) -> dict[bytes, bytes]:
    """Tag names, case kept, with their values, without white space around both (RFC 6376 section 3.2).

    Values keep the white space inside them, which is SP, HTAB and folds alone.  Raises TagError for control characters,
    bare CR or LF, a tag without "=", a bad name, an empty tag, a name given twice, or over 100 tags.
    """
    rest = text.translate(None, _ALLOWED)
    if rest and (rest != b"\r\n" * (len(rest) // 2) or _NO_FOLD.search(text)):
        raise TagError("control character" if rest.strip(b"\r\n") else "line break that is no fold")
    parts = text.split(b";", _MAX_TAGS + 1)
    if len(parts) > _MAX_TAGS + 1:
        raise TagError(f"over {_MAX_TAGS} tags")
    if not parts[-1].strip():
        parts.pop()  # one final ";" is allowed
    tags: dict[bytes, bytes] = {}
    for part in parts:
        name, equals, value = part.partition(b"=")
        name = name.strip()  # of FWS: what else Python takes for white space is refused above
        if not name.isalpha() or not equals:
            _check_name(name, equals)
        # RFC 6376 section 3.2: a name that occurs twice makes the entire list invalid.
        if name in tags:
            raise TagError(f"{name.decode()}= given twice" if len(name) < 20 else "tag given twice")
        tags[name] = value.strip()
    return tags


def _check_name(name: bytes, equals: bytes) -> None:
    if not equals:
        raise TagError("tag without =")
    if not (name[:1].isalpha() and name.replace(b"_", b"a").isalnum()):
        raise TagError("bad tag name")


def split_list(value: bytes) -> list[bytes]:
    """The items of a colon-separated value, without white space around them (RFC 6376 section 3.6.1 and others)."""
    return [item.strip(_FWS) for item in value.split(b":")]


def drop_fws(value: bytes) -> bytes:
    """The value without its folding white space."""
    return value.translate(None, _FWS)


def decode_base64(value: bytes) -> bytes:
    """The octets of a base64string (RFC 6376 section 2.10), which may hold white space anywhere; see `decode_text`."""
    return decode_text(drop_fws(value))


def decode_text(text: bytes) -> bytes:
    """The octets of base64 without white space.

    Raises TagError for characters outside the alphabet, bad padding, or nothing at all.
    """
    if not text:
        raise TagError("empty")
    try:
        octets = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise TagError("not base64") from None
    if len(text) != (len(octets) + 2) // 3 * 4:  # Python lets "=" follow whole groups of four
        raise TagError("not base64")
    return octets
