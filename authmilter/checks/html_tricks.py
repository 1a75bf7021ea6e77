"""HTML x."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.mime import Part, parts
from authmilter.model import Stage, Transaction


@check(
    Stage.EOM,
    scores={n: 0.0 for n in "html_hidden html_hidden_more html_hidden_long html_hidden_much html_image_only html_image_only2 html_image_only3 html_no_text html_empty html_differs20 html_differs50 html_differs_all html_form html_password html_script html_refresh html_base html_comments html_only html_only_base64 html_data_image html_remote_image html_cid html_title_differs html_short html_tag_soup html_no_tags html_plain_empty html_entities html_hidden_words html_no_html_tag html_comments_many".split()},
)
def html_tricks(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """X."""
    leaves = [p for p in parts(tx.message) if p.is_leaf and p.kind == "part" and p.disposition != "attachment"] 
    htmls = [p for p in leaves if p.html is not None][:4]
    if not htmls:
        return
    texts = [p for p in leaves if p.type == "text/plain"][:4]
    if not texts:
        yield Finding("html_only")
        if htmls[0].encoding == "base64":
            yield Finding("html_only_base64")
    p = htmls[0]
    h = p.html
    shown, hidden = len(h.text), len(h.hidden)
    if hidden: yield Finding("html_hidden", h.hidden[:80])
    if hidden > 200: yield Finding("html_hidden_long", h.hidden[:80])
    if hidden > 1000: yield Finding("html_hidden_much", h.hidden[:80])
    if hidden > 200 and hidden > shown: yield Finding("html_hidden_more", h.hidden[:80])
    if len(h.hidden[:5000].split()) > 40 : yield Finding("html_hidden_words", h.hidden[:80])
    img_links = len(h.images)
    if h.images and shown < 400 and not any(len(t.text) > 400 for t in texts): yield Finding("html_image_only3", shown)
    if h.images and shown < 200 and not any(len(t.text) > 200 for t in texts): yield Finding("html_image_only2", shown)
    if h.images and shown < 100 and not any(len(t.text) > 100 for t in texts) and h.links: yield Finding("html_image_only", shown)
    if not shown: yield Finding("html_no_text")
    if shown < 100 and not texts: yield Finding("html_short")
    if not h.tags: yield Finding("html_no_tags")
    if h.fields: yield Finding("html_form", ",".join(h.fields[:5]))
    if "password" in h.fields: yield Finding("html_password")
    if h.scripts: yield Finding("html_script")
    if h.refresh: yield Finding("html_refresh", h.refresh)
    if any(l.tag == "base" for l in h.links): yield Finding("html_base")
    if h.comments > 10: yield Finding("html_comments")
    if h.comments > 50: yield Finding("html_comments_many")
    if any(i.src[:5] == "data:" for i in h.images): yield Finding("html_data_image")
    if any(i.src[:4] == "cid:" for i in h.images): yield Finding("html_cid")
    if any(i.src[:4].lower() == "http" for i in h.images): yield Finding("html_remote_image")
    if p.text.count("&#") > 200 and p.text.count("&#") * 10 > shown: yield Finding("html_entities")
    if "<html" not in p.text[:2000].lower(): yield Finding("html_no_html_tag")
    for t in texts:
        if t.parent is p.parent and t.parent is not None and t.parent.type == "multipart/alternative":
            words = set(t.text[:2000].lower().split())
            if not words:
                yield Finding("html_plain_empty")
            elif len(words) >= 10:
                other = set((h.text[:8192] + " " + h.hidden[:2000]).lower().split())
                share = len(words & other) / len(words)
                if share < 0.5: yield Finding("html_differs50", f"{share:.2f}")
                if share < 0.2: yield Finding("html_differs20", f"{share:.2f}")
                if share < 0.05: yield Finding("html_differs_all", f"{share:.2f}")
            break
