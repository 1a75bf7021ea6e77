"""MIME that readers take apart in different ways, or that breaks the rules (RFC 2045, RFC 2046)."""

from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.mime import ODDITIES, mime
from authmilter.model import Stage, Transaction

# Measured on some 6,000 good and 7,000 bad messages, of which hardly one has any of these, but for footers that lists
# append; small, since a sender who is new to us may have software of his own.
_WEIGHTS = {
    "type_repeated": 1.0,
    "type_malformed": 0.2,
    "encoding_repeated": 1.0,
    "encoding_unknown": 0.5,
    "encoded_multipart": 1.0,
    "encoded_message": 0.0,
    "charset_unknown": 0.5,
    "boundary_ambiguous": 1.5,
    "boundary_absent": 0.5,
    "boundary_prefix": 0.5,
    "end_absent": 0.3,
    "behind_end": 0.5,
    "outside_parts": 0.0,
    "bare_cr": 1.0,
    "header_broken": 0.5,
    "names_differ": 1.0,
    "base64_joined": 1.0,
    "base64_cut": 0.3,
    "uuencoded": 0.0,
    "fragment": 0.5,
    "limits": 0.5,
}


@check(
    Stage.EOM,
    content=True,
    scores={f"mime_{name}": weight for name, weight in _WEIGHTS.items()},
    body=True,
    meanings={f"mime_{name}": meaning for name, meaning in ODDITIES.items()},
)
def mime_structure(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Parts, boundaries, encodings or file names that mail readers read in different ways.

    What is missing because no more of a large message was kept ([milter] scan_size) is not among them.
    """
    taken = mime(tx.message)
    for part in taken.parts:
        if part.encoding == "base64":
            _ = part.data  # some oddities show when it is decoded
    for name, detail in taken.oddities:
        yield Finding(f"mime_{name}", detail)
