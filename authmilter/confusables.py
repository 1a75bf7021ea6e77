"""Characters that look like others: how a text, or a domain, reads to whoever only looks at it.

The table is made from ``confusables.txt`` of Unicode 15.1 (Unicode Technical Standard 39 section 4): single characters
of the basic plane that look like an ASCII letter or digit, in the form that case folding leaves, without those that
compatibility decomposition makes ASCII anyhow.  That data is Copyright Unicode, Inc., and under the Unicode License v3,
whose text is in ``confusables.LICENSE`` beside this file.  All of it would be 35 times as much, of which a mail address
in Latin letters needs nothing.
"""

import re
import unicodedata
from functools import lru_cache

# Characters that reverse what follows whatever it is (UAX 9 section 2.2).  Embeddings and isolates are not among them: they
# come with names that were copied from an address book, and leave letters in their order.
OVERRIDES = "\u202d\u202e"
# Characters that nobody sees, and that no language needs between letters.  Joiners (U+200C, U+200D), soft hyphens and the
# marks U+200E and U+200F have good uses, and are not among them.
INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060\u2061\u2062\u2063\u2064\u206a-\u206f\u3164\ufeff\uffa0"

# Latin letters in another dress: small capitals, circled, squared, and those of mathematics.  Full width is usual in East Asia.
STYLED = "\u0262\u026a\u0274\u0280\u028f\u0299\u029c\u029f\u1d00-\u1d22\u24b6-\u24e9\U0001d400-\U0001d7ff\U0001f130-\U0001f189"

_UNSEEN = re.compile(f"[{INVISIBLE}\u00ad\u061c\u200c-\u200f\u202a-\u202e\u2066-\u2069\ufe00-\ufe0f]")

_LOOK_LIKE = {
    "2": "ƨϩᒿꙅꛯꝛ",
    "3": "ȝɜʒзӡⳍꝫ",
    "4": "Ꮞ",
    "6": "бᏮⳓ",
    "8": "ȣ৪੪ଃ",
    "9": "৭੧୨൭ⳋꝯ",
    "a": "ɑαаᎪᗅ⍺ꓮ",
    "b": "ƅβвьᏏᏴᑲᖯᗷꓐꞵ",
    "c": "сᏟᴄⲥꓚ",
    "d": "ԁᎠᏧᑯᗞᗪꓒꓓ",
    "e": "εеҽᎬ℮⋿ⴹꓰꬲ",
    "f": "ϝքᖴẝꓝꞙꬵ",
    "g": "ƍɡԍցᏀᏳᶃꓖ",
    "h": "ηнһհᎻᏂᕼⲏꓧ",
    "i": "ıɩɪιіӏᎥ⍳ꙇ",
    "j": "ʝϳјᎫᒍꓙ",
    "k": "κкᏦᛕⲕꓗ",
    "l": "ǀ۱Ꮮᒪᛁ∣⏽│ⲓⳑⵏꓡꓲ",
    "m": "μϻмᎷᗰᛖⲙꓟ",
    "n": "ոռⲛꓠ",
    "o": "οσоօ۵०০੦૦ଠ୦௦ం౦ಂ೦ംഠ൦ං๐໐ဝ၀ჿዐᴏᴑⲟⵔ〇ꓳꬽ",
    "p": "ρрᏢᑭ⍴ⲣꓑ",
    "q": "ԛգզⵕ",
    "r": "ʀгᎡᎱᏒᖇᴦⲅꓣꭇꭈ",
    "s": "ƽѕտᏕᏚꓢꜱ",
    "t": "τтᎢ⊤⟙ⲧꓔ",
    "u": "ʋυսሀᑌᴜ∪⋃ꓴꞟꭎꭒ",
    "v": "νѵ۷Ꮩᐯᴠ∨⋁ⴸꓦꛟ",
    "w": "ɯѡԝաᎳᏔᴡꓪ",
    "x": "×χхᕁᕽ᙭᙮ᚷ╳⤫⤬⨯ⲭⵝꓫꭓ",
    "y": "ɣʏγуүყᎩᎽᶌỿⲩꓬꭚ",
    "z": "ζᏃᴢꓜ",
}
_TABLE = {ord(char): letter for letter, chars in _LOOK_LIKE.items() for char in chars}

# What looks alike within ASCII, in most typefaces or a careless moment.
_ASCII_PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"))
_ASCII_SINGLE = str.maketrans("01i|35", "ollles")

# Scripts with letters that are taken for Latin ones.
_SCRIPTS_LIKE_LATIN = re.compile("[\u0370-\u058f\u13a0-\u13ff\u1f00-\u1fff\u2c80-\u2cff\ua4d0-\ua4ff\uab70-\uabbf]")
_LIKE_LATIN = frozenset(("ARMENIAN", "CHEROKEE", "COPTIC", "CYRILLIC", "GREEK", "LISU"))


def plain(text: str) -> str:
    """How a text reads: case folded, without accents and what nobody sees, look-alikes of Latin letters as those.

    Text in another alphabet comes out as nonsense, which does no harm: it is only ever compared.
    """
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKD", _UNSEEN.sub("", text)).casefold()
    return "".join([c for c in text if not unicodedata.combining(c)]).translate(_TABLE)


def skeleton(text: str) -> str:
    """The same, with what looks alike within ASCII made equal too: equal skeletons look alike."""
    text = plain(text).translate(_ASCII_SINGLE)
    for pair, single in _ASCII_PAIRS:
        text = text.replace(pair, single)
    return text


@lru_cache(maxsize=4096)
def script(char: str) -> str:
    """The script of a letter, by the first word of its name: ``LATIN``, ``GREEK``, ...; "" if it has none."""
    return unicodedata.name(char, "").partition(" ")[0]


def mixes_scripts(word: str) -> bool:
    """Does a word have Latin letters beside letters of another script that all look like some?

    So not a unit such as kΩ, whose last letter looks like nothing else.
    """
    if not _SCRIPTS_LIKE_LATIN.search(word):
        return False
    scripts = {"LATIN" if char.isascii() else script(char) for char in word if char.isalpha()}
    return "LATIN" in scripts and not _LIKE_LATIN.isdisjoint(scripts) and plain(word).isascii()


def u_label(label: str) -> str:
    """A label of a domain as it is shown: an A-label decoded, without a look at whether RFC 5891 allows what comes out."""
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode().decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        return label


@lru_cache(maxsize=4096)
def is_disguised(domain: str) -> bool:
    """Does a lower-case domain in A-labels have a label that mixes scripts, or one all of whose letters pass for Latin
    ones, under a top-level domain in Latin letters?"""
    labels = domain.split(".")
    for label in map(u_label, labels[:-1]):
        if mixes_scripts(label):
            return True
        others = [char for char in label if not char.isascii()]
        if others and labels[-1].isalpha() and plain(label).isascii() and "LATIN" not in map(script, others):
            return True
    return False
