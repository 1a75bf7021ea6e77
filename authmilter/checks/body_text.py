"""Text x."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.confusables import INVISIBLE, OVERRIDES, STYLED, mixes_scripts
from authmilter.evidence import Finding
from authmilter.mime import Part, parts
from authmilter.model import Stage, Transaction
_UNSEEN = re.compile(f"[^\W\d_][{INVISIBLE}\u00ad\u200c\u200d\ufeff]+[^\W\d_]")
_ZW = re.compile(f"[{INVISIBLE}]")
_SHY = re.compile("[a-z]\u00ad+[a-z]")
_ENT_ZW = re.compile("[\u200c\u200d\u034f\u00ad\u2007\u200b\ufeff]")
_STYLED = re.compile(f"[{STYLED}]")
_OVER = re.compile(f"[{OVERRIDES}]")
_WORD = re.compile(r"[^\W\d_]{3,40}")
_BTC = re.compile(r"(?<![A-Za-z0-9/=_+-])(?:[13][1-9A-HJ-NP-Za-km-z]{25,34}|bc1[02-9ac-hj-np-z]{11,71})(?![A-Za-z0-9/=_+-])")
_ETH = re.compile(r"(?<![A-Za-z0-9])0x[0-9a-fA-F]{40}(?![A-Za-z0-9])")
_TRX = re.compile(r"(?<![A-Za-z0-9/=_+-])T[1-9A-HJ-NP-Za-km-z]{33}(?![A-Za-z0-9/=_+-])")
_LTC = re.compile(r"(?<![A-Za-z0-9/=_+-])(?:ltc1[02-9ac-hj-np-z]{11,71}|[LM][1-9A-HJ-NP-Za-km-z]{33}|4[0-9AB][1-9A-HJ-NP-Za-km-z]{93})(?![A-Za-z0-9/=_+-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
_TOLL = re.compile(r"(?<!\d)(?:\+?1[ .(-]{0,3})?8(?:00|33|44|55|66|77|88)[) .-]{1,3}\d{3}[ .-]{1,2}\d{4}(?!\d)")
_MONEY = re.compile(r"(?:[$€£]|USD|EUR|GBP|US\$) ?\d{1,3}(?:[,.]\d{3}){2,}|\d+(?:\.\d+)? ?million (?:us ?)?(?:dollars|usd|euro|pounds)|(?:[$€£]|USD|EUR|GBP) ?\d+(?:\.\d+)? ?million", re.I)
_WA = re.compile(r"wa\.me/|t\.me/|api\.whatsapp\.com|whatsapp ?[:+]", re.I)
_FREEMAIL = re.compile(r"[\w.+-]{1,64}@(?:gmail|yahoo|hotmail|outlook|aol|protonmail|proton|mail|yandex|zoho|qq|163)\.(?:com|me|ru|co\.uk)", re.I)

@check(
    Stage.EOM,
    scores={n: 0.0 for n in "text_unseen1 text_unseen5 text_unseen20 text_zw text_zw20 text_shy text_shy5 text_filler30 text_filler100 text_mixed1 text_mixed3 text_styled text_override text_btc text_eth text_trx text_ltc text_iban text_toll text_money text_wa text_freemail text_base64_ascii text_base64 text_blank text_longword text_short text_empty text_gap text_caps text_qp_ascii text_ascii_only_utf8 text_random".split()},
)
def body_text(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """X."""
    leaves = [p for p in parts(tx.message) if p.is_leaf and p.kind == "part" and p.disposition != "attachment" and p.type.startswith("text/")][:4]
    seen = {}
    def add(s, d=""):
        seen.setdefault(s, str(d)[:80])
    total = 0
    for p in leaves:
        h = p.html
        text = h.text if h else p.text
        total += len(text)
        raw = p.text[:65536]
        text = text[:65536]
        if p.encoding == "base64":
            add("text_base64")
            if raw.isascii() and len(raw) > 20: add("text_base64_ascii")
        if p.encoding == "quoted-printable":
            r = p.raw
            if len(re.findall(rb"=[46][0-9A-F]", r[:20000])) > 50: add("text_qp_ascii")
        if not text.isascii():
            n = len(_UNSEEN.findall(text))
            if n: add("text_unseen1", n)
            if n >= 5: add("text_unseen5", n)
            if n >= 20: add("text_unseen20", n)
            n = len(_ZW.findall(text))
            if n: add("text_zw", n)
            if n > 20: add("text_zw20", n)
            n = len(_SHY.findall(text.lower()))
            if n: add("text_shy", n)
            if n>=5: add("text_shy5", n)
            n = len(_ENT_ZW.findall(text))
            if n > 30: add("text_filler30", n)
            if n > 100: add("text_filler100", n)
            n = sum(1 for w in _WORD.findall(text[:20000]) if not w.isascii() and mixes_scripts(w))
            if n: add("text_mixed1", n)
            if n>=3: add("text_mixed3", n)
            if len(_STYLED.findall(text)) > 3: add("text_styled")
            if _OVER.search(text): add("text_override")
        for s, r in (("btc", _BTC), ("eth", _ETH), ("trx", _TRX), ("ltc", _LTC), ("iban", _IBAN), ("toll", _TOLL), ("money", _MONEY), ("wa", _WA), ("freemail", _FREEMAIL)):
            m = r.search(text)
            if m: add("text_" + s, m[0])
        if "\n\n\n\n\n\n\n\n\n\n\n\n" in p.text: add("text_blank")
        words = text[:8000].split()
        if any(len(w) > 100 and "://" not in w for w in words): add("text_longword", max(words, key=len))
        letters = sum(map(str.isupper, text[:4000]))
        if len(text) > 200 and letters * 2 > len(text[:4000]) : add("text_caps")
    if leaves and total < 100: add("text_short")
    if not total: add("text_empty")
    for s, d in seen.items():
        yield Finding(s, d)
