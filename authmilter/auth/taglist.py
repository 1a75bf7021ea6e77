"""Tag lists, ``name=value; name=value``: the syntax of DKIM-Signature and of key records (RFC 6376 section 3.2)."""

import binascii

_MAX_TAGS = 100  # a signature has about a dozen

# VALCHAR with "=", ";" and FWS; RFC 8616 section 3 adds UTF-8 to the values, judged where a value is used.
_ALLOWED = b"\t\r\n" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_FWS = b" \t\r\n"


class TagError(ValueError):
    """A tag list, or the value of a tag, breaks its grammar; the text says how, without quoting the input."""


def parse_tags(text: bytes) -> dict[bytes, bytes]:
    """Tag names, case kept, with their values, without white space around both (RFC 6376 section 3.2).

    Values keep the white space inside them.  Raises TagError for control characters, bare CR or LF, a tag without "=",
    a bad name, an empty tag, a name given twice, or over 100 tags.
    """
    if text.translate(None, _ALLOWED):
        raise TagError("control character")
    breaks = text.count(b"\r")
    if (breaks or b"\n" in text) and not (breaks == text.count(b"\n") == text.count(b"\r\n ") + text.count(b"\r\n\t")):
        raise TagError("line break that is no fold")
    if text.count(b";") > _MAX_TAGS:
        raise TagError(f"over {_MAX_TAGS} tags")
    parts = text.split(b";")
    if not parts[-1].strip(_FWS):
        parts.pop()  # one final ";" is allowed
    tags: dict[bytes, bytes] = {}
    for part in parts:
        name, equals, value = part.partition(b"=")
        name = name.strip(_FWS)
        if not equals:
            raise TagError("tag without =")
        if not (name[:1].isalpha() and name.replace(b"_", b"a").isalnum()):
            raise TagError("bad tag name")
        # RFC 6376 section 3.2: a name that occurs twice makes the entire list invalid.
        if name in tags:
            raise TagError(f"{name.decode()}= given twice" if len(name) < 20 else "tag given twice")
        tags[name] = value.strip(_FWS)
    return tags


def split_list(value: bytes) -> list[bytes]:
    """The items of a colon-separated value, without white space around them (RFC 6376 section 3.6.1 and others)."""
    return [item.strip(_FWS) for item in value.split(b":")]


def drop_fws(value: bytes) -> bytes:
    """The value without its folding white space."""
    return value.translate(None, _FWS)


def decode_base64(value: bytes) -> bytes:
    """The octets of a base64string (RFC 6376 section 2.10), which may hold white space anywhere.

    Raises TagError for characters outside the alphabet, bad padding, or nothing at all.
    """
    text = value.translate(None, _FWS)
    if not text:
        raise TagError("empty")
    try:
        octets = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise TagError("not base64") from None
    if len(text) != (len(octets) + 2) // 3 * 4:  # Python lets "=" follow whole groups of four
        raise TagError("not base64")
    return octets
