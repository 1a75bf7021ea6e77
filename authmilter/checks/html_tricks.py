"""HTML that shows its reader something else than a filter, or does what no mail needs to do."""

from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.html_text import Html
from authmilter.mime import Part, parts
from authmilter.model import Message, Stage, Transaction
from authmilter.text_words import text_words, words

_MOST = 4  # parts of each kind that are looked at
_PREHEADER = 200  # characters of hidden text up to which it is what the list of messages shows below the subject
_HIDDEN_WORDS = 40  # more are no such line
_FEW_WORDS = 200  # characters up to which a text is no more than what goes with a picture
_MOST_WORDS = 300  # of a text without markup that are looked for in the HTML
_LONGEST_HTML = 8192
_FEWEST_WORDS = 10  # from which on two texts can be told to differ
_ALIKE = 0.3  # share of the words of one that the other has


# Measured on 6,276 good and 7,090 bad messages.  Among the good ones are few advertisements, which are mostly HTML, hide
# lines and have pictures: so what they too may have weighs less than its log-odds.
@check(
    Stage.EOM,
    content=True,
    body=True,
    scores={
        "html_only": 0.7,
        "html_only_base64": 1.0,
        "html_hidden_text": 1.0,
        "html_hidden_more": 0.5,
        "html_image_only": 1.5,
        "html_data_image": 0.5,
        "html_differs": 1.5,
        "html_plain_empty": 1.0,
        "html_script": 1.0,
        "html_form": 0.3,
        "html_password": 1.5,
        "html_refresh": 1.0,
        "html_base": 0.5,
    },
    meanings={
        "html_only": "HTML without plain text beside it.",
        "html_only_base64": "The same in base64.",
        "html_hidden_text": "More text is hidden, by styles or style sheets, than the line that lists of messages show.",
        "html_hidden_more": "More text is hidden than shown.",
        "html_image_only": (
            "Pictures from elsewhere and links, with hardly any text; the less text there is, the more of it.  Attached "
            "pictures do not count."
        ),
        "html_data_image": "A picture within the HTML itself (data:).",
        "html_differs": "Few words of the plain text are in the HTML that is its alternative.",
        "html_plain_empty": "The plain text beside the HTML is empty.",
        "html_script": "Scripts, or handlers of events; not data in JSON for the reader.",
        "html_form": "Fields to fill in.",
        "html_password": "A field for a password.",
        "html_refresh": "A page that leads on to another by itself.",
        "html_base": "A base element, which moves where links lead.",
    },
)
def html_tricks(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """HTML with much hidden text, with pictures in place of text, differing from the plain text, or with forms or scripts."""
    pages, texts = _shown_parts(tx.message)
    if not pages:
        return
    if not texts:
        yield Finding("html_only")
        if pages[0].encoding == "base64":
            yield Finding("html_only_base64")
    found: dict[str, str] = {}
    for page in pages:
        html = page.html
        if html is not None:
            _look_at(html, found)
            plain = next((text for text in texts if text.parent is page.parent), None)
            if plain is not None and plain.parent is not None and plain.parent.type == "multipart/alternative":
                _compare(tx.message, plain, page, html, found)
    if share := _of_pictures(pages, texts):
        yield Finding("html_image_only", "", share)
    for symbol, detail in found.items():
        yield Finding(symbol, detail)


def _shown_parts(message: Message) -> tuple[list[Part], list[Part]]:
    """The parts with HTML, and those with plain text, that a reader shows as the message."""
    pages: list[Part] = []
    texts: list[Part] = []
    for part in parts(message):
        kind = part.type
        if kind == "text/plain":
            found = texts
        elif kind in ("text/html", "application/xhtml+xml"):
            found = pages
        else:
            continue
        if part.kind == "part" and len(found) < _MOST and part.disposition != "attachment":
            found.append(part)
    return pages, texts


def _look_at(html: Html, found: dict[str, str]) -> None:
    if len(html.hidden) > _PREHEADER:
        # Invisible characters and punctuation fill up the line in the list of messages, and are not written to be read.
        hidden = [word for word in html.hidden[:_LONGEST_HTML].split() if word[0].isalnum()]
        if len(hidden) > _HIDDEN_WORDS:
            # What is written twice, for large screens and for small ones, hides nothing.
            shown = set(html.text[:_LONGEST_HTML].split())
            hidden = [word for word in hidden if word not in shown]
        if len(hidden) > _HIDDEN_WORDS:
            found.setdefault("html_hidden_text", html.hidden[:60])
            if sum(map(len, hidden)) + len(hidden) > len(html.text):
                found.setdefault("html_hidden_more", f"{len(hidden)} words hidden, {len(html.text)} characters shown")
    if html.fields:
        found.setdefault("html_form", ", ".join(html.fields[:5]))
        if "password" in html.fields:
            found.setdefault("html_password", "")
    if html.scripts:
        found.setdefault("html_script", str(html.scripts))
    if html.refresh:
        found.setdefault("html_refresh", html.refresh[:60])
    if any(link.tag == "base" for link in html.links):
        found.setdefault("html_base", "")
    if any(image.src[:5].lower() == "data:" for image in html.images):
        found.setdefault("html_data_image", "")


def _of_pictures(pages: list[Part], texts: list[Part]) -> float:
    """How much of what there is to read is in pictures that lead somewhere: 0 if there are none, 1 if there is no text.

    Pictures that are attached are what people send to each other.
    """
    read = [page.html for page in pages if page.html is not None]
    if not any(image.src[:4].lower() != "cid:" for html in read for image in html.images):
        return 0.0
    if not any(link.tag in ("a", "area") for html in read for link in html.links):
        return 0.0
    # The sum for pages, since a message may have many; of plain text each part is an alternative to them.
    shown = max([sum(len(html.text) for html in read), *(len(text.text) for text in texts)])
    return round(max(0.0, 1 - shown / _FEW_WORDS), 2)


def _compare(message: Message, plain: Part, page: Part, html: Html, found: dict[str, str]) -> None:
    """Multipart/alternative has the same content in several forms (RFC 2046 section 5.1.4)."""
    known = {part: (in_order, different) for part, in_order, different in text_words(message)}
    if plain not in known or page not in known:
        return  # more texts than are read
    these = set(known[plain][0][:_MOST_WORDS])
    if not these:
        if html.text:
            found.setdefault("html_plain_empty", "")
    elif len(these) >= _FEWEST_WORDS:
        others = known[page][1]
        if html.hidden:
            others = others.union(words(html.hidden[:_LONGEST_HTML]))
        share = len(these & others) / len(these)
        if share < _ALIKE:
            found.setdefault("html_differs", f"{round(100 * share)} % of the words of the plain text are in the HTML")
