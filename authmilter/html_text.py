"""What an HTML body shows, hides and links to.

A scanner after the tokenisation of the HTML standard (section 13.2.5), not a tree: the trees that the standard asks for
grow with the square of what is not closed (lexbor takes 2.8 s and 850 MB for 32 KB of nested font elements), and text
and links need none.  Each octet is looked at once; a tag that was read before is not read again.

What is hidden is found by the styles of elements and by the simple selectors of style sheets (``p``, ``.class``,
``p.class``, ``#id``).  Where it depends on the screen, or can't be told, it counts as shown.
"""

import re
from functools import lru_cache
from html import unescape
from html.entities import html5
from typing import NamedTuple

MAX_HTML = 1024 * 1024  # characters that are looked at
MAX_LINKS = 2000
MAX_ATTRIBUTES = 200  # of a tag, besides those that are looked for
MAX_SHEETS = 128 * 1024  # characters of all style sheets
MAX_RULES = 1000  # selectors of theirs that are kept
MAX_CLASSES = 8  # of an element
MAX_NESTED = 32  # changes between shown and hidden, one within the other


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
    `refresh` is where a meta element leads.  `comments` counts those; of what is in them Outlook shows some, and its
    links are among `links`.  `cut`: more than `MAX_HTML` or `MAX_LINKS`.
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


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern in which ``\\s`` within brackets is what the standard calls white space (section 13.2.5.32).

    Python knows more, such as U+00A0, which is part of a name there: ``<a x\\xa0href=HERE href=THERE>`` leads to the second.
    """
    return re.compile(text.replace(r"\s", r" \t\n\f\r"))


# After "<": a tag with its attributes, or a comment, declaration or processing instruction.  A sign of equality is part
# of a name where a name begins, quotes count only behind one.  Nothing is ever tried twice.
_MARKUP = _pattern(
    r"<(?:(/?[a-zA-Z][^\s/>]*+"
    r"[\s/]*+=?+(?:[^>=/]++|/++[\s]*+=?+|=[\s]*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+)?+[\s/]*+=?+)*+)(>?)"
    r"|(!--|[!?]|/(?=[^a-zA-Z])))"
)
_TAG = _pattern(r"(/?)([a-zA-Z][^\s/]*+)((?s:.*+))")
# The attributes as above, but no quote is left open: else the tag may go on behind the ">" at which it was cut.
_COMPLETE = _pattern(
    r"[\s/]*+=?+(?:[^=/]++|/++[\s]*+=?+|=[\s]*+(?:\"[^\"]*+\"|'[^']*+'|[^\s\"'][^\s]*+|(?![\"']))[\s/]*+=?+)*+"
)
# It matches wherever it is tried: else a run of blanks would be tried again from each of them.
_ATTRIBUTE = _pattern(
    r"[\s/]*+(?:(=?[^\s/>=]++)(?:[\s]*+=(?:[\s]*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>\"'][^\s>]*+)))?+)?+|[=>]++|\Z)"
)
_LONG_TAG = 512  # characters from which on a tag is hardly there twice
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
    "v:roundrect": "href",  # the buttons of Outlook
    "v:rect": "href",
    "v:oval": "href",
    "v:shape": "href",
}
_LED_BY = frozenset((*_LINKS.values(), "xlink:href", "content", "http-equiv"))
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
    name: _pattern(rf"(?i:</{name}[\s/>])")
    for name in ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
}
_SHOWN_RAW = ("textarea", "xmp")
_HANDLER = re.compile(r"on[a-z]{4,}")
# "5; url=HERE", "0;HERE", "0, 'HERE'" (HTML standard, section 4.2.5.3).
_REFRESH = re.compile(r"[\s0-9.]*+(?:[;,\s]\s*+)?+(?:url\s*+=\s*+)?+['\"]?([^'\"]*+)", re.IGNORECASE)
_HREF = re.compile("href", re.IGNORECASE)
_LONG_REFERENCE = re.compile(r"&#(?:[xX][0-9a-fA-F]{8,}|[0-9]{8,})")


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
    if len(text) < _LONG_TAG:
        for name, double, single, bare in _ATTRIBUTE.findall(text):
            if name:
                found.setdefault(name.lower(), _value(double or single or bare))
        return found
    for one in _ATTRIBUTE.finditer(text):
        name = one[1]
        if name and (len(found) < MAX_ATTRIBUTES or name.lower() in _LED_BY):
            found.setdefault(name.lower(), _value(one[2] or one[3] or one[4] or ""))
    return found


def _lines(pieces: list[str]) -> str:
    """The text of the pieces: a line for each block, and white space as one blank."""
    text = "".join(pieces)
    # Quicker than to take words apart and to join them again, and no longer in the worst case: each turn halves a run.
    for sign in "\n\t\r\f\xa0":
        text = text.replace(sign, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return "\n".join([line for line in map(str.strip, text.split("\0")) if line])


# ------------------------------------------------------------------------------------------------ how elements look

# Why text is not seen.  What is within an element inherits all of it, but may undo each but the first.
_GONE, _TINY, _UNCOLOURED, _INVISIBLE = 1, 2, 4, 8


class _Looks(NamedTuple):
    """What a style says of how an element is shown: reasons why it `hides`, and those that it `undoes`."""

    hides: int
    undoes: int
    ground: bool  # is there a colour or picture behind its text?
    white: bool  # is its text white?


_PLAIN = _Looks(0, 0, False, False)
_LONG_STYLE = 4096  # characters of declarations that are looked at
_REMEMBERED = 512  # the same up to which what was read of them is kept for others
_CSS_COMMENT = re.compile(r"/\*(?:[^*]++|\*(?!/))*+(?:\*/|\Z)")
_LENGTH = re.compile(r"(-?[0-9]*+(?:\.[0-9]*+)?+)(px|pt|em|rem|ex|%|)")
_FONT_SIZE = re.compile(r"(?:^|\s)([0-9.][0-9.a-z%]*+)(?:/\S*+)?+\s")
_TINIEST = {"em": 0.1, "rem": 0.1, "ex": 0.1, "%": 10.0}
_CLIPPED = ("height", "max-height", "width", "max-width")
_MOVING = ("text-indent", "left", "top")
_AWAY = re.compile(r"-[0-9]{3}")
_WHITE = frozenset(("#fff", "#ffffff", "white", "rgb(255,255,255)", "ffffff", "fff", "#fefefe", "#fdfdfd"))


def _look(style: str, colour: str = "", ground: str = "") -> _Looks:
    """The looks that declarations give, over the colours of attributes."""
    if len(style) > _REMEMBERED:
        return _looks.__wrapped__(style[:_LONG_STYLE], colour[:40], ground[:40])
    return _looks(style, colour[:40], ground[:40])


@lru_cache(maxsize=2048)
def _looks(style: str, colour: str, ground: str) -> _Looks:
    given = _declared(style)
    undoes = 0
    hides = _GONE if _is_gone(given) else 0
    display = given.get("display")
    if display is not None and display != "none":
        undoes = _GONE
    if (visibility := given.get("visibility")) is not None:
        if visibility in ("hidden", "collapse"):
            hides |= _INVISIBLE
        elif visibility == "visible":
            undoes |= _INVISIBLE
    size = given.get("font-size")
    if size is None and "font" in given:
        found = _FONT_SIZE.search(given["font"])
        size = found[1] if found else None
    if size is not None:
        length, unit = _length(size)
        if length < _TINIEST.get(unit, 1.01):
            hides |= _TINY
        elif unit not in ("em", "ex", "%"):  # those are parts of the size around
            undoes |= _TINY
    colour = given.get("color", colour).replace(" ", "")
    ground = given.get("background-color", given.get("background", ground)).replace(" ", "")
    if colour == "transparent" or (colour and colour == ground):
        hides |= _UNCOLOURED
    elif colour and colour not in ("inherit", "initial", "unset") and colour not in _WHITE:
        undoes |= _UNCOLOURED
    white = colour in _WHITE
    if not (hides or undoes or ground or white):
        return _PLAIN
    is_ground = ground not in ("", "none", "transparent", "inherit", "initial") and ground not in _WHITE
    return _Looks(hides, undoes & ~hides, is_ground, white)


def _declared(style: str) -> dict[str, str]:
    """The declarations by property; the last of one counts, but for those that are marked as important."""
    if "/*" in style:
        style = _CSS_COMMENT.sub("", style)
    found: dict[str, str] = {}
    important: set[str] = set()
    for declaration in style.lower().split(";", MAX_ATTRIBUTES)[:MAX_ATTRIBUTES]:
        name, colon, value = declaration.partition(":")
        if not colon:
            continue
        name = name.strip()
        value, mark, _ = value.partition("!")
        if mark:
            important.add(name)
        elif name in important:
            continue
        found[name] = value.strip()
    return found


def _is_gone(given: dict[str, str]) -> bool:
    """Is it nowhere to be seen, with all that is in it?"""
    if given.get("display") == "none":
        return True
    if "opacity" in given and _length(given["opacity"])[0] < 0.1:
        return True
    if given.get("overflow") == "hidden":
        for name in _CLIPPED:
            if name in given and _length(given[name])[0] == 0:
                return True
    return any(_AWAY.match(given[name]) for name in _MOVING if name in given)


def _length(text: str) -> tuple[float, str]:
    """A number and its unit; what is none is large."""
    found = _LENGTH.fullmatch(text[:40])
    try:
        return (float(found[1]), found[2]) if found else (999.0, "px")
    except ValueError:  # a point alone
        return 999.0, "px"


# ------------------------------------------------------------------------------------------------ style sheets


class _Rule:
    """What the rules of a selector come to, those that are marked as important apart."""

    __slots__ = ("firmly_hides", "firmly_undoes", "hides", "undoes")

    def __init__(self) -> None:
        self.hides = self.undoes = self.firmly_hides = self.firmly_undoes = 0

    def add(self, hides: int, undoes: int, important: bool) -> None:
        """A later rule goes before an earlier one."""
        self.hides = self.hides & ~undoes | hides
        self.undoes = self.undoes & ~hides | undoes
        if important:
            self.firmly_hides = self.firmly_hides & ~undoes | hides
            self.firmly_undoes = self.firmly_undoes & ~hides | undoes


_SELECTOR = re.compile(r"[a-z][a-z0-9]*+(?:[.#][\w-]++)?+|[.#][\w-]++")
_TELLING = re.compile("display|visib|font|color|opacity|overflow|indent|left|top|background")
# What is shown to whoever reads it on some screen or in some reader.
_ALWAYS = re.compile(r"@media\s++(?:only\s++)?+(?:all|screen)\s*+")


class _Sheets:
    """The style sheets of a document, as far as they hide something."""

    def __init__(self) -> None:
        self.rules: dict[str, _Rule] = {}
        self.matters = False  # does any rule hide something, or show what its own style hides?
        self.ground = False  # does any give a colour to what is behind text?
        self._room = MAX_SHEETS

    def add(self, css: str) -> None:
        """Read a sheet."""
        css = css[: self._room].lower()
        self._room -= len(css)
        css = css.replace("<!--", " ").replace("-->", " ")
        if "/*" in css:
            css = _CSS_COMMENT.sub(" ", css)
        conditions: list[bool] = []  # of the @ rules around
        for piece in css.split("}"):
            *around, body = piece.split("{")
            if not around:
                if conditions:
                    conditions.pop()
                continue
            for rule in around[:-1]:
                conditions.append(len(conditions) < MAX_NESTED and _ALWAYS.fullmatch(rule.strip()) is None)
            if _TELLING.search(body):
                self._rule(around[-1].rpartition(";")[2], body, any(conditions[:MAX_NESTED]))

    def _rule(self, selectors: str, body: str, conditional: bool) -> None:
        looks = _look(body)
        self.ground = self.ground or looks.ground
        hides = 0 if conditional else looks.hides
        if not hides and not looks.undoes:
            return
        important = "!" in body
        for selector in selectors.split(",", 100)[:100]:
            # Where an element must be within another, this can't be told, so that it is at most shown by the rule.
            *around, last = selector.split() or [""]
            if _SELECTOR.fullmatch(last) is None or (around and not looks.undoes):
                continue
            rule = self.rules.get(last)
            if rule is None:
                if len(self.rules) >= MAX_RULES:
                    return
                rule = self.rules[last] = _Rule()
            rule.add(0 if around else hides, looks.undoes, important)
            self.matters = self.matters or bool(hides) or (important and looks.undoes & _GONE > 0)

    def of(self, name: str, given: dict[str, str]) -> _Rule:
        """What is said of an element."""
        found = _Rule()
        marks = [f".{mark}" for mark in given.get("class", "").lower().split(None, MAX_CLASSES)[:MAX_CLASSES]]
        if given.get("id"):
            marks.append(f"#{given['id'].lower()}")
        for selector in (name, *marks, *(f"{name}{mark}" for mark in marks)):
            rule = self.rules.get(selector)
            if rule is not None:
                found.add(rule.hides, rule.undoes, False)
                found.firmly_hides |= rule.firmly_hides
                found.firmly_undoes |= rule.firmly_undoes
        return found


# ------------------------------------------------------------------------------------------------ tags


class _Tag(NamedTuple):
    """A tag as it stands between "<" and ">"; `matters`: it does more than to begin or end a block, even where
    nothing is hidden."""

    name: str
    closing: bool
    block: bool
    matters: bool
    given: dict[str, str]
    looks: _Looks
    handlers: int


_new = tuple.__new__  # of a NamedTuple, at half the price
_NONE: dict[str, str] = {}
_MATTERING = frozenset((*_LINKS, *_RAW, "img", "meta"))


def _read(head: str) -> _Tag | None:
    """Read a tag without its brackets; None if it is none, or may be longer than `head`."""
    found = _TAG.match(head)
    if found is None:
        return None
    slash, name, rest = found.groups()
    if ('"' in rest or "'" in rest) and _COMPLETE.fullmatch(rest) is None:
        return None
    return _tag(name.lower(), bool(slash), rest)


def _tag(name: str, closing: bool, rest: str) -> _Tag:
    if closing:
        return _new(_Tag, (name, True, name in _BLOCKS, name == "a", _NONE, _PLAIN, 0))
    given = attributes(rest) if rest and not rest.isspace() else _NONE
    looks = _PLAIN
    handlers = 0
    if given:
        if "style" in given or "color" in given or "bgcolor" in given:
            looks = _look(given.get("style", ""), given.get("color", "").lower(), given.get("bgcolor", "").lower())
        if "hidden" in given:
            looks = looks._replace(hides=looks.hides | _GONE)
        if "background" in given:
            looks = looks._replace(ground=True)
        if name == "font" and "size" in given:
            looks = looks._replace(undoes=looks.undoes | _TINY & ~looks.hides)
        handlers = len([key for key in given if key[:2] == "on" and _HANDLER.fullmatch(key)])
    matters = looks.hides != 0 or looks.ground or looks.white or handlers > 0 or name in _MATTERING
    return _new(_Tag, (name, False, name in _BLOCKS, matters, given, looks, handlers))


_known = lru_cache(maxsize=2048)(_read)  # a document has the same tags many times, and so have those of one sender


class _Reader:
    def __init__(self, text: str, *, conditional: bool = False) -> None:
        self._source = text[:MAX_HTML].replace("\0", "\N{REPLACEMENT CHARACTER}")
        self._conditional = conditional  # is it within a comment?
        self._cut = len(text) > MAX_HTML
        self._shown: list[str] = []
        self._hidden: list[str] = []
        self._out = self._shown  # where text goes
        self._links: list[Link] = []
        self._images: list[Image] = []
        self._fields: list[str] = []
        self._title = ""
        self._refresh = ""
        self._scripts = self._comments = self._tags = 0
        # Why text is not seen here, and the elements that changed that: name, how many of the name are open from there
        # on, and what it was before.
        self._state = 0
        self._changes: list[tuple[str, int, int]] = []
        self._sheets = _Sheets()
        self._href: str | None = None
        self._link_text: list[str] = []
        self._link_hidden = False
        self._grounds = False  # has any element a colour behind its text?
        self._endless: set[str] = set()  # elements that have no end tag from here on

    def read(self) -> Html:
        self._scan()
        self._end_link()
        return Html(
            _lines(self._shown),
            _lines(self._hidden),
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

    def _scan(self) -> None:
        """Go through the pieces that begin with "<": mostly a tag and the text behind it."""
        source = self._source
        pieces = iter(source.split("<"))
        text = next(pieces)
        position = len(text)  # of the next "<"
        resume = 0  # what is before was read with another piece
        if text:
            self._text(text)
        for piece in pieces:
            at = position
            position += len(piece) + 1
            if at < resume:
                if position <= resume:
                    continue
                text = source[resume:position]
            else:
                head, end, text = piece.partition(">")
                tag = (_known(head) if len(head) < _LONG_TAG else _read(head)) if end else None
                if tag is None:
                    resume = self._odd(at)
                    text = source[resume:position]
                else:
                    self._tags += 1
                    if tag.block:
                        self._end_line()
                    if tag.matters or self._changes or self._sheets.matters:
                        resume = self._act(tag, at + len(head) + 2)
                        if resume != at + len(head) + 2:
                            text = source[resume:position]
            if text:
                if "&" in text:
                    text = _unescaped(text).replace("\0", "")
                self._out.append(text)
                if self._href is not None:
                    self._link_text.append(text)

    def _text(self, text: str) -> None:
        text = _unescaped(text).replace("\0", "")
        self._out.append(text)
        if self._href is not None:
            self._link_text.append(text)

    def _end_line(self) -> None:
        self._out.append("\0")
        if self._href is not None:
            self._link_text.append(" ")

    def _odd(self, at: int) -> int:
        """What begins with "<", but is no tag up to the next ">"; returns where text goes on."""
        found = _MARKUP.match(self._source, at)
        if found is None:
            return at
        inner, end, other = found.groups()
        if other is not None:
            return self._skipped(found.end(), other)
        if not end:
            return found.end()  # the document ends within the tag, which is then none
        parts = _TAG.match(inner)
        assert parts is not None  # it is how `_MARKUP` begins
        tag = _tag(parts[2].lower(), bool(parts[1]), parts[3])
        self._tags += 1
        if tag.block:
            self._end_line()
        return self._act(tag, found.end())

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
            end = found.start() if found else len(source)
            outlook = source[position : position + 3].lower() == "[if" and not self._conditional
            if outlook and _HREF.search(source, position, end):
                # Outlook reads what stands in such comments.
                self._links += _Reader(source[position:end], conditional=True).read().links
            return found.end() if found else len(source)
        end = source.find(">", position)
        return len(source) if end < 0 else end + 1

    def _act(self, tag: _Tag, position: int) -> int:
        """Do what a tag does that ends at `position`; returns where text goes on."""
        name = tag.name
        if self._changes:
            self._nest(name, tag.closing)
        if tag.closing:
            if name == "a":
                self._end_link()
            return position
        if name not in _VOID:
            self._see(tag)
        self._scripts += tag.handlers
        if name in _LINKS:
            self._link(name, tag.given)
        elif name == "img":
            given = tag.given
            self._images.append(Image(*(given.get(key, "") for key in ("src", "alt", "width", "height"))))
            if self._href is not None:
                if given.get("alt"):
                    self._link_text.append(f" {given['alt']} ")
                if not self._state & (_GONE | _INVISIBLE):
                    self._link_hidden = False  # letters of no size make no picture small
        elif name == "meta" and tag.given.get("http-equiv", "").lower() == "refresh":
            found = _REFRESH.match(tag.given.get("content", ""))
            self._refresh = self._refresh or (found[1].strip() if found else "")
        return self._raw(tag, position) if name in _RAW else position

    # -------------------------------------------------------------------------------------------- what is seen

    def _nest(self, name: str, closing: bool) -> None:
        """Count a tag within elements that changed what is seen, of which it may end some."""
        changes = self._changes
        if changes[-1][0] == "p" and not closing and name in _BLOCKS and name != "br":
            self._state = changes.pop()[2]  # a block ends a paragraph
        for number in range(len(changes) - 1, -1, -1):
            opened, level, before = changes[number]
            if opened == name:
                if not closing:
                    changes[number] = opened, level + 1, before
                elif level > 1:
                    changes[number] = opened, level - 1, before
                else:
                    del changes[number:]
                    self._state = before
                break
        self._out = self._hidden if self._state else self._shown

    def _see(self, tag: _Tag) -> None:
        """How an element that begins is seen."""
        looks = tag.looks
        self._grounds = self._grounds or looks.ground
        hides, undoes = looks.hides, looks.undoes
        if looks.white and not self._grounds:
            hides |= _UNCOLOURED
        if self._sheets.matters and (tag.given or tag.name in self._sheets.rules):
            rule = self._sheets.of(tag.name, tag.given)
            hides = ((hides | rule.hides & ~undoes) & ~rule.firmly_undoes) | rule.firmly_hides
            undoes |= (rule.undoes | rule.firmly_undoes) & ~hides
        state = self._state & ~(undoes & ~_GONE) | hides
        if state != self._state and len(self._changes) < MAX_NESTED:
            self._changes.append((tag.name, 1, self._state))
            self._state = state
            self._out = self._hidden if state else self._shown
            self._link_hidden = self._link_hidden and state != 0

    # -------------------------------------------------------------------------------------------- what is in it

    def _raw(self, tag: _Tag, position: int) -> int:
        """Read the content of an element that is no markup; returns where its end tag stands."""
        source = self._source
        name = tag.name
        if name in self._endless:
            return position
        end = source.find("</", position)
        while end >= 0 and _RAW[name].match(source, end) is None:
            end = source.find("</", end + 2)
        if end < 0:
            self._endless.add(name)
            return position
        text = source[position:end]
        if name == "title":
            self._title = self._title or " ".join(_unescaped(text).split())
        elif name in _SHOWN_RAW:
            self._text(text)
        elif name == "script":
            # Tickets and receipts say in JSON what they are about, which Gmail and others read; nothing runs.
            self._scripts += tag.given.get("type", "").lower() != "application/ld+json"
        elif name == "style":
            self._sheets.add(text)
            self._grounds = self._grounds or self._sheets.ground
        return end

    def _end_link(self) -> None:
        if self._href is not None:
            text = " ".join("".join(self._link_text).replace("\0", " ").split())
            self._links.append(Link("a", self._href, text, self._link_hidden))
            self._href = None
            self._link_text = []

    def _link(self, name: str, given: dict[str, str]) -> None:
        if name == "input":
            self._fields.append(given.get("type", "text").lower())
        href = given.get(_LINKS[name])
        if href is None:
            href = given.get("xlink:href") if name == "a" else None  # within SVG
        if href is None:
            return
        # What browsers drop from a URL (URL standard, section 4.1): white space around it, tab and line ends in it.
        href = href.strip().replace("\n", "").replace("\r", "").replace("\t", "")
        if href[:11].lower() == "javascript:":
            self._scripts += 1
        if name == "a":
            self._end_link()  # links do not nest
            self._href, self._link_hidden = href, self._state != 0
        else:
            self._links.append(Link(name, href, "", self._state != 0))
