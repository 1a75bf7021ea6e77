"""What an HTML body shows, hides and links to.

A scanner after the tokenisation of the HTML standard (section 13.2.5), not a tree: the trees that the standard asks for
grow with the square of what is not closed, up to gigabytes from some kilobytes of hostile mail, and text and links need
none.  Each octet is looked at once.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from html import unescape
from html.entities import html5
from typing import NamedTuple

MAX_HTML = 1024 * 1024  # characters that are looked at
MAX_LINKS = 2000


class Link(NamedTuple):
    """A reference to somewhere: `tag` is the element (a, area, base, form, iframe ...), `text` what is shown for it."""

    tag: str
    href: str
    text: str
    hidden: bool = False


class Image(NamedTuple):
    """An image, its attributes as written, "" where there is none."""

    src: str
    alt: str
    width: str
    height: str


class Html(NamedTuple):
    """What is in an HTML document.

    `text` is what is shown, with a line for each block; `hidden` what is there, but not shown.  `fields` are the types of
    the input fields (password, email, text ...).  `scripts` counts script elements, handlers of events and javascript:.
    `refresh` is where a meta element leads.  `comments` counts those.  `cut`: more than `MAX_HTML` or `MAX_LINKS`.
    """

    text: str
    hidden: str
    title: str
    links: tuple[Link, ...]
    images: tuple[Image, ...]
    fields: tuple[str, ...]
    scripts: int
    refresh: str
    comments: int
    tags: int
    cut: bool


# After "<": a tag with its attributes, or a comment, declaration or processing instruction.  A sign of equality is part
# of a name where a name begins, quotes count only behind one.  Nothing is ever tried twice.
_MARKUP = re.compile(
    r"<(?:(/?)([a-zA-Z][^\s/>]*+)"
    r"([\s/]*+=?+(?:[^>=/]++|/++\s*+=?+|=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+)?+[\s/]*+=?+)*+)(>?)"
    r"|(!--|[!?]|/(?=[^a-zA-Z])))"
)
_ATTRIBUTE = re.compile(r"(=?[^\s/>=]++)(?:\s*+=(?:\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>\"'][^\s>]*+)))?+)?+|[\s/=]++")
_COMMENT_END = re.compile(r"--!?>")
_LINKS = {
    "a": "href",
    "area": "href",
    "base": "href",
    "link": "href",
    "form": "action",
    "button": "formaction",
    "input": "formaction",
    "iframe": "src",
    "frame": "src",
    "embed": "src",
    "script": "src",
    "object": "data",
}
_BLOCKS = frozenset(
    (
        "address", "article", "blockquote", "body", "br", "caption", "center", "dd", "div", "dl", "dt", "fieldset", "footer",
        "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html", "li", "main", "nav", "ol", "option", "p",
        "pre", "section", "table", "tbody", "td", "tfoot", "th", "thead", "title", "tr", "ul",
    )
)  # fmt: skip
_VOID = frozenset(
    (
        "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
    )
)  # fmt: skip
# What stands in these is no markup (HTML standard, section 13.1.2): up to their end tag all is text.
_RAW = {
    name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE)
    for name in ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
}
_SHOWN_RAW = ("textarea", "xmp")
_HINT = re.compile(r"style|hidden|color|size|\bon[a-z]{4,}", re.IGNORECASE)
_HANDLER = re.compile(r"on[a-z]{4,}")
_HIDING = re.compile(
    r"(?:^|;)(?:display:none|visibility:(?:hidden|collapse)|mso-hide:all|color:transparent"
    r"|font-size:0*+(?:\.0*+)?+[01]?(?:px|pt|em|rem|%)?(?=[;!]|$)|opacity:0*+(?:\.0++)?+(?=[;!]|$)"
    r"|(?:max-)?(?:height|width):0(?:px|pt|em|%)?(?=[;!]|$)|text-indent:-[0-9]{3}|(?:left|top):-[0-9]{3})"
)
_COLOUR = re.compile(r"(?:^|;)color:([^;!]{3,30})")
_GROUND = re.compile(r"(?:^|;)background(?:-color)?:([^;!]{3,30})")
_BLANK = re.compile(r"\s++")
_URL = re.compile(r"url\s*+=\s*+['\"]?([^'\"]*+)", re.IGNORECASE)
_LONG_REFERENCE = re.compile(r"&#(?:[xX][0-9a-fA-F]{8,}|[0-9]{8,})")
_WHITE = ("#fff", "#ffffff", "white", "rgb(255,255,255)", "ffffff", "fff")


def read_html(text: str) -> Html:
    """Read a document, whatever it is made of; never fails."""
    return _Reader(text).read()


def _unescaped(text: str) -> str:
    if "&" not in text:
        return text
    try:
        return unescape(text)
    except ValueError:  # Python refuses to read numbers of thousands of digits
        return unescape(_LONG_REFERENCE.sub("\N{REPLACEMENT CHARACTER}", text))


# In an attribute a reference without its semicolon is none before a letter, digit or "=" (HTML standard, section
# 13.2.5.73): else "?a=1&copy=2" would not lead where it says.
_REFERENCE = re.compile(r"&(?:#[xX]?[0-9a-fA-F]++;?|[a-zA-Z][a-zA-Z0-9]{0,31}+(?:;|(?![a-zA-Z0-9=])))")


def _value(text: str) -> str:
    """The value of an attribute."""
    return _REFERENCE.sub(_referred, text) if "&" in text else text


def _referred(found: re.Match[str]) -> str:
    if found[0][1] == "#" or found[0][-1] == ";":
        return _unescaped(found[0])
    return html5.get(found[0][1:], found[0])


def attributes(text: str) -> dict[str, str]:
    """The attributes of a tag, names in lower case; the first of a name counts (HTML standard, section 13.2.5.33)."""
    found: dict[str, str] = {}
    for name, double, single, bare in _ATTRIBUTE.findall(text):
        if name:
            found.setdefault(name.lower(), _value(double or single or bare))
    return found


def _lines(pieces: list[str]) -> Iterator[str]:
    for line in "".join(pieces).split("\0"):
        words = " ".join(line.split())
        if words:
            yield words


class _Reader:
    def __init__(self, text: str) -> None:
        self._source = text[:MAX_HTML].replace("\0", "\N{REPLACEMENT CHARACTER}")
        self._cut = len(text) > MAX_HTML
        self._shown: list[str] = []
        self._hidden: list[str] = []
        self._links: list[Link] = []
        self._images: list[Image] = []
        self._fields: list[str] = []
        self._title = ""
        self._refresh = ""
        self._scripts = self._comments = self._tags = 0
        # The element that hides what is in it, and how many of its name are open within.
        self._hiding = ""
        self._level = 0
        self._href: str | None = None
        self._link_text: list[str] = []
        self._link_hidden = False
        self._grounds = False  # has any element a colour behind its text?

    def read(self) -> Html:
        source = self._source
        position = 0
        endless: set[str] = set()  # elements that have no end tag from here on
        search = _MARKUP.search
        while found := search(source, position):
            at = found.start()
            closing, name, rest, end, other = found.groups()
            if at > position:
                self._text(source[position:at])
            position = found.end()
            if other is not None:
                position = self._skipped(position, other)
                continue
            self._tags += 1
            name = name.lower()
            if name in _BLOCKS:
                (self._hidden if self._hiding else self._shown).append("\0")
                if self._href is not None:
                    self._link_text.append(" ")
            if closing:
                if name == "a":
                    self._end_link()
                if name == self._hiding:
                    self._level -= 1
                    if not self._level:
                        self._hiding = ""
                continue
            if self._hiding:
                self._within(name)
            if end and (rest or name == "input"):
                self._start_tag(name, rest)
            if name in _RAW and name not in endless:
                close = _RAW[name].search(source, position)
                if close is None:
                    endless.add(name)
                else:
                    self._raw(name, source[position : close.start()])
                    position = close.start()
        self._text(source[position:])
        self._end_link()
        return Html(
            "\n".join(_lines(self._shown)),
            "\n".join(_lines(self._hidden)),
            self._title,
            tuple(self._links[:MAX_LINKS]),
            tuple(self._images[:MAX_LINKS]),
            tuple(self._fields[:MAX_LINKS]),
            self._scripts,
            self._refresh,
            self._comments,
            self._tags,
            self._cut or len(self._links) > MAX_LINKS or len(self._images) > MAX_LINKS,
        )

    def _skipped(self, position: int, kind: str) -> int:
        """Where a comment, or what the standard takes for one, ends."""
        source = self._source
        if kind == "!--":
            self._comments += 1
            if source.startswith(">", position):
                return position + 1
            if source.startswith("->", position):
                return position + 2
            found = _COMMENT_END.search(source, position)
            return found.end() if found else len(source)
        end = source.find(">", position)
        return len(source) if end < 0 else end + 1

    def _text(self, text: str) -> None:
        if "&" in text:
            text = _unescaped(text).replace("\0", "")
        (self._hidden if self._hiding else self._shown).append(text)
        if self._href is not None:
            self._link_text.append(text)

    def _raw(self, name: str, text: str) -> None:
        if name == "title":
            self._title = self._title or " ".join(_unescaped(text).split())
        elif name in _SHOWN_RAW:
            self._text(text)
        elif name == "script":
            self._scripts += 1

    def _end_link(self) -> None:
        if self._href is not None:
            text = " ".join("".join(self._link_text).replace("\0", " ").split())
            self._links.append(Link("a", self._href, text, self._link_hidden))
            self._href = None
            self._link_text = []

    def _within(self, name: str) -> None:
        """A start tag in what is hidden."""
        if name == self._hiding:
            self._level += 1
        elif self._hiding == "p" and name in _BLOCKS and name != "br":
            self._hiding = ""  # a block ends a paragraph

    def _start_tag(self, name: str, rest: str) -> None:
        looks = _looks(rest) if len(rest) <= 512 else _look(rest)
        if looks is not _PLAIN:
            if looks.ground:
                self._grounds = True
            self._scripts += looks.handlers
            if not self._hiding and name not in _VOID and (looks.hides or (looks.white and not self._grounds)):
                self._hiding, self._level = name, 1
        if name in _LINKS:
            self._link(name, attributes(rest))
        elif name == "img":
            given = attributes(rest)
            self._images.append(Image(*(given.get(key, "") for key in ("src", "alt", "width", "height"))))
            if given.get("alt") and self._href is not None:
                self._link_text.append(f" {given['alt']} ")
        elif name == "meta":
            given = attributes(rest)
            if given.get("http-equiv", "").lower() == "refresh":
                found = _URL.search(given.get("content", ""))
                self._refresh = self._refresh or (found[1].strip() if found else "")

    def _link(self, name: str, given: dict[str, str]) -> None:
        if name == "input":
            self._fields.append(given.get("type", "text").lower())
        href = given.get(_LINKS[name])
        if href is None:
            return
        # What browsers drop from a URL (URL standard, section 4.1): white space around it, tab and line ends in it.
        href = href.strip().replace("\n", "").replace("\r", "").replace("\t", "")
        if href[:11].lower() == "javascript:":
            self._scripts += 1
        if name == "a":
            self._end_link()  # links do not nest
            self._href, self._link_hidden = href, bool(self._hiding)
        else:
            self._links.append(Link(name, href, "", bool(self._hiding)))


class _Looks(NamedTuple):
    """What attributes say of how an element is shown."""

    hides: bool
    ground: bool  # is there a colour or picture behind its text?
    white: bool  # is its text white?
    handlers: int  # of events


def _look(rest: str) -> _Looks:
    if not _HINT.search(rest):
        return _PLAIN
    given = attributes(rest)
    colour = given.get("color", "").strip().lower()
    ground = given.get("bgcolor", "").strip().lower()
    hides = "hidden" in given
    style = given.get("style", "")
    if style:
        style = _BLANK.sub("", style).lower()
        hides = hides or _HIDING.search(style) is not None
        found = _COLOUR.search(style)
        colour = found[1] if found else colour
        found = _GROUND.search(style)
        ground = found[1] if found else ground
    handlers = sum(1 for key in given if key[:2] == "on" and _HANDLER.fullmatch(key))
    return _Looks(
        hides or (colour != "" and colour == ground), bool(ground or "background" in given), colour in _WHITE, handlers
    )


_PLAIN = _Looks(False, False, False, 0)
_looks = lru_cache(maxsize=1024)(_look)  # a document has the same attributes many times
