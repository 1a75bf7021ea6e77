"""What HTML shows, hides and links to."""

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.html_text import MAX_HTML, Html, Link, attributes, read_html
from tests.test_linear import STEP_GROWTH, TIME_GROWTH, Work, repeated_text, step_growth, time_growth


@pytest.mark.parametrize(
    ("source", "text"),
    [
        pytest.param("<p>a <b>b</b>c</p><p>d</p>", "a bc\nd", id="blocks are lines"),
        pytest.param("a\n  b\r\n\tc", "a b c", id="white space is one blank"),
        pytest.param("a<br>b<td>c", "a\nb\nc", id="line breaks and cells"),
        pytest.param("Pay<!-- x -->Pal", "PayPal", id="a comment within a word"),
        pytest.param("a<!-->b", "ab", id="a comment that ends at once"),
        pytest.param("a<!--->b", "ab", id="a comment that ends a little later"),
        pytest.param("a<!-- --!>b", "ab", id="a comment with an odd end"),
        pytest.param("a<!-- b", "a", id="a comment without end"),
        pytest.param("a<!doctype x>b<?php c>d</!e>f", "abdf", id="what is taken for comments"),
        pytest.param("a<![if mso]>b<![endif]>c", "abc", id="conditions that show"),
        pytest.param("&lt;b&gt; &amp;amp; &#228;&#xe4;&auml &nbsp;x", "<b> &amp; \xe4\xe4\xe4 x", id="references"),
        pytest.param("a &#" + "9" * 5000 + "; b", "a \ufffd; b", id="a reference of 5,000 digits"),
        pytest.param("1 < 2 & 3 > 2", "1 < 2 & 3 > 2", id="signs that are no markup"),
        pytest.param("a<style>b{}</style>c<script>d<p></script >e", "ace", id="styles and scripts"),
        pytest.param("a<script>b", "ab", id="a script without end is text, rather than nothing"),
        pytest.param("<textarea><b>x</b></textarea>", "<b>x</b>", id="markup that is shown as text"),
        pytest.param("<p title='>'>a<p title=\"'>\">b", "a\nb", id="signs in quoted values"),
        pytest.param("<p it's>a</p><p it's>b", "a\nb", id="quotes that begin no value"),
        pytest.param('<p ="x>a">b', 'a">b', id="a name that begins with a sign of equality"),
        pytest.param("<p a=b='c>d", "d", id="a quote within a bare value"),
        pytest.param("a\0b", "a\ufffdb", id="NUL"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_text(source: str, text: str) -> None:
    assert read_html(source).text == text


@pytest.mark.parametrize(
    ("source", "shown", "hidden"),
    [
        ("<p style='display:none'>a</p>b", "b", "a"),
        ("<div style='DISPLAY : none'><div>a</div>b</div>c", "c", "a\nb"),
        ("<span hidden>a</span>b", "b", "a"),
        ("<span style='font-size:0px'>a</span>b", "b", "a"),
        ("<span style='font-size:0.0em'>a</span>b", "b", "a"),
        ("<span style='font-size:1px'>a</span>b", "b", "a"),
        ("<span style='font-size:10px'>a</span>b", "ab", ""),
        ("<span style='font-size:0.9em'>a</span>b", "ab", ""),
        ("<span style='opacity:0'>a</span>b", "b", "a"),
        ("<span style='opacity:0.5'>a</span>b", "ab", ""),
        ("<span style='visibility:hidden'>a</span>b", "b", "a"),
        ("<span style='max-height:0;overflow:hidden'>a</span>b", "b", "a"),
        ("<span style='line-height:0'>a</span>b", "ab", ""),
        ("<span style='color:#123456;background:#123456'>a</span>b", "b", "a"),
        ("<font color=red bgcolor=red>a</font>b", "b", "a"),
        ("<font color=white>a</font>b", "b", "a"),
        ("<table bgcolor=black><tr><td><font color=white>a</font>b", "ab", ""),
        ("<span style='text-indent:-9999px'>a</span>b", "b", "a"),
        ("<p style='display:none'>a<div>b</div>", "b", "a"),
        ("<img style='display:none'>b", "b", ""),
        ("<span style='font-size:1em'>a</span>b", "ab", ""),
        ("<span style='font-size:1rem'>a</span>b", "ab", ""),
        ("<span style='font-size:.5px'>a</span>b", "b", "a"),
        ("<span style='font-size:.'>a</span>b", "ab", ""),
        ("<span style='font:0/0 a'>a</span>b", "b", "a"),
        ("<span style='font:bold 12px/1 Arial'>a</span>b", "ab", ""),
        ("<span style='opacity:.01'>a</span>b", "b", "a"),
        ("<span style='display:none;display:block'>a</span>b", "ab", ""),
        ("<span style='display:none!important;display:block'>a</span>b", "b", "a"),
        ("<span style='display:/* x */none'>a</span>b", "b", "a"),
        ("<span style='mso-hide:all'>a</span>b", "ab", ""),
        ("<td style='height:0;line-height:0'>a</td>b", "a", ""),
        ("<td style='font-size:0'>a<div style='font-size:13px'>b</div>c</td>", "b", "a\nc"),
        ("<td style='font-size:0'>a<p><font size=2>b</font></td>", "b", "a"),
        ("<td style='font-size:0'>a<b style='font-size:1em'>b</b></td>", "", "ab"),
        ("<p style='display:none'><b style='display:block;font-size:13px'>a</b></p>b", "b", "a"),
        ("<p style='visibility:hidden'>a<b style='visibility:visible'>b</b></p>", "b", "a"),
        ("<font color=#FFFFFF>a<font color=red>b</font>c</font>", "b", "ac"),
        ("<td style='font-size:0'><table><td>a</td></table>b</td>c", "c", "a\nb"),
        ("<p hidden>a<b>b<p>c", "c", "ab"),
    ],
)
def test_hidden_text(source: str, shown: str, hidden: str) -> None:
    found = read_html(source)
    assert found.text.split("\n")[0] == shown
    assert found.hidden == hidden


@pytest.mark.parametrize(
    ("source", "links"),
    [
        pytest.param(
            '<a href="http://a.example/">x <b>y</b></a>', [Link("a", "http://a.example/", "x y")], id="a link"
        ),
        pytest.param("<A HREF=a>x</A>", [Link("a", "a", "x")], id="in capitals, without quotes"),
        pytest.param("<a/href='a'>x", [Link("a", "a", "x")], id="a slash for a blank, and no end"),
        pytest.param("<a href=a>x<a href=b>y</a>", [Link("a", "a", "x"), Link("a", "b", "y")], id="links do not nest"),
        pytest.param("<a href=a href=b>x</a>", [Link("a", "a", "x")], id="the first of two"),
        pytest.param("<a href='?a=1&amp;b=2&copy=3&lt'>x</a>", [Link("a", "?a=1&b=2&copy=3<", "x")], id="references"),
        pytest.param("<a href='&#106;ava\nscript:x'>x</a>", [Link("a", "javascript:x", "x")], id="what browsers drop"),
        pytest.param("<a href=a><img alt=logo src=b></a>", [Link("a", "a", "logo")], id="a picture"),
        pytest.param("<a href=a><p>x</p>y</a>", [Link("a", "a", "x y")], id="blocks within"),
        pytest.param("<a href=a>x<p a='<>'>y</a>", [Link("a", "a", "x y")], id="an odd block within"),
        pytest.param("<a =href=b href=a>x</a>", [Link("a", "a", "x")], id="a name that begins with a sign of equality"),
        pytest.param("<a name=a>x</a>", [], id="an anchor"),
        pytest.param("<!-- <a href=a>x</a> -->", [], id="in a comment"),
        pytest.param(
            "<form action=a><button formaction=b>", [Link("form", "a", ""), Link("button", "b", "")], id="forms"
        ),
        pytest.param(
            "<base href=a><iframe src=b></iframe>", [Link("base", "a", ""), Link("iframe", "b", "")], id="others"
        ),
        pytest.param("<div hidden><a href=a>x</a></div>", [Link("a", "a", "x", True)], id="hidden"),
        pytest.param("<p title=it's><a href=a>x</a>", [Link("a", "a", "x")], id="behind a quote that begins nothing"),
        pytest.param('<p ="><a href=a>x</a>', [Link("a", "a", "x")], id="behind a sign of equality that begins a name"),
        pytest.param("<p title='><a href=a>x</a>", [Link("a", "a", "x")], id="behind a quote without end"),
        *(
            pytest.param(f"<a x{blank}href=a href=b>x</a>", [Link("a", "b", "x")], id=f"behind a name with {name}")
            for name, blank in (
                ("U+00A0", "\xa0"),
                ("U+0085", "\x85"),
                ("U+2028", "\u2028"),
                ("VT", "\x0b"),
                ("US", "\x1f"),
            )
        ),
        pytest.param(
            "<a " + "".join(f"a{n}=b " for n in range(300)) + "href=a>x</a>",
            [Link("a", "a", "x")],
            id="behind 300 others",
        ),
        pytest.param("<svg><a xlink:href=a>x</a></svg>", [Link("a", "a", "x")], id="in a drawing"),
        pytest.param(
            "<!--[if gte mso 9]><a HREF=a>x</a><![endif]-->", [Link("a", "a", "x")], id="for Outlook, in capitals"
        ),
        pytest.param("<!--[IF mso]><v:oval href=a><![endif]-->", [Link("v:oval", "a", "")], id="a drawing for Outlook"),
        pytest.param(
            "<p style='font-size:0'><a href=a><img src=b></a></p>",
            [Link("a", "a", "")],
            id="a picture among small text",
        ),
        pytest.param(
            "<p style='font-size:0'><a href=a><b style='font-size:9px'>x</b></a></p>",
            [Link("a", "a", "x")],
            id="shown within",
        ),
        pytest.param(
            "<p style='display:none'><a href=a><img src=b></a></p>",
            [Link("a", "a", "", True)],
            id="a picture that is hidden",
        ),
    ],
)
def test_links(source: str, links: list[Link]) -> None:
    assert list(read_html(source).links) == links


@pytest.mark.parametrize(
    ("css", "element", "hidden"),
    [
        pytest.param(".x{display:none}", "<div class='x'>", True, id="a class"),
        pytest.param(".x { DISPLAY : NONE ; }", "<div class='y X'>", True, id="one of several classes"),
        pytest.param("div.x, #y {font-size:0}", "<div id=y>", True, id="an identifier"),
        pytest.param("div.x{font-size:0}", "<div class=x>", True, id="an element with a class"),
        pytest.param("div.x{font-size:0}", "<p class=x>", False, id="another element with the class"),
        pytest.param("blockquote{display:none}", "<blockquote>", True, id="all of an element"),
        pytest.param("<!-- .x{display:none} -->", "<p class=x>", True, id="in what was a comment once"),
        pytest.param("/* } */ .x/**/{display:/**/none}", "<p class=x>", True, id="with comments"),
        pytest.param("@import url(x); .x{display:none}", "<p class=x>", True, id="behind an import"),
        pytest.param("@font-face{src:x} .x{display:none}", "<p class=x>", True, id="behind another rule"),
        pytest.param("@media screen{.x{display:none}}", "<p class=x>", True, id="on every screen"),
        pytest.param("@media (max-width:9px){.x{display:none}}", "<p class=x>", False, id="on small screens"),
        pytest.param("@media (max-width:9px){} .x{display:none}", "<p class=x>", True, id="behind small screens"),
        pytest.param(".x{display:none} @media (max-width:9px){.x{display:block}}", "<p class=x>", False, id="but for small screens"),
        pytest.param("@media (max-width:9px){.x{display:block!important}}", "<p class=x style='display:none'>", False, id="shown on small ones"),
        pytest.param(".x{display:none} .x{display:block}", "<p class=x>", False, id="a later rule"),
        pytest.param(".x{display:block} .x{display:none}", "<p class=x>", True, id="a later rule that hides"),
        pytest.param(".x{display:none}", "<p class=x style='display:block'>", False, id="shown by its own style"),
        pytest.param(".x{display:none !important}", "<p class=x style='display:block'>", True, id="hidden all the same"),
        pytest.param("p .x{display:none}", "<div class=x>", False, id="within something else"),
        pytest.param(".x:hover{display:none}", "<div class=x>", False, id="when the mouse is there"),
        pytest.param(".x{display:none", "<div class=x>", True, id="without end"),
        pytest.param(".x{display:none}}}} {{{ .y{", "<div class=x>", True, id="braces too many"),
        pytest.param(".x{color:#fff}", "<div class=x>", False, id="white by a rule"),
        pytest.param("", "<div class=x>", False, id="nothing"),
    ],
)  # fmt: skip
def test_style_sheets(css: str, element: str, hidden: bool) -> None:
    found = read_html(f"<style>{css}</style>{element}a")
    assert (found.text, found.hidden) == (("", "a") if hidden else ("a", ""))


def test_white_text_is_seen_where_a_sheet_gives_a_ground() -> None:
    white = "<td class=x><font color=white>a</font>"
    assert read_html(white).hidden == "a"
    assert read_html(f"<style>.x{{background:#000}}</style>{white}").text == "a"
    assert read_html(f"<style>.x{{background:#fff}}</style>{white}").hidden == "a"


def test_small_text_is_seen_within_a_rule_that_says_so() -> None:
    source = "<style>.a{font-size:0} .b{font-size:14px}</style><td class=a>a<p class=b>b</p></td>"
    assert read_html(source).text == "b"
    assert read_html(source).hidden == "a"


def test_links_that_outlook_alone_shows() -> None:
    source = "<!--[if mso]><v:roundrect href=a><![endif]--><!-- <a href=b> --><!--[if gte mso 9]><a href='c'>x</a><![endif]-->"
    assert [(link.tag, link.href) for link in read_html(source).links] == [("v:roundrect", "a"), ("a", "c")]
    # What Outlook alone hides is there for all others.
    assert read_html("<!--[if mso]><div hidden href><![endif]-->a").text == "a"
    assert read_html("<!--[if x]><!--[if y]><a href=z>").comments == 1


def test_changes_within_changes_are_bounded() -> None:
    deep = "<p style='font-size:0'>" + "<b style='font-size:9px'><i style='font-size:0'>" * 1000 + "a"
    assert read_html(deep).text + read_html(deep).hidden == "a"


def test_the_rest() -> None:
    found = read_html(
        "<title>A &amp; B</title><meta http-equiv=Refresh content='0; URL=http://a.example/'>"
        "<img src=cid:1 alt=x width=1 height=1><form><input type=PASSWORD><input></form>"
        "<script>x</script><p onclick=y><a href='javascript:z'>w</a><!-- c -->"
    )
    assert found.title == "A & B"
    assert found.refresh == "http://a.example/"
    assert found.images == (("cid:1", "x", "1", "1"),)
    assert found.fields == ("password", "text")
    assert (found.scripts, found.comments, found.cut) == (3, 1, False)


@pytest.mark.parametrize("content", ["5; url=a", "0;URL='a'", "0;a", "0, a", " 1.5 url = a", "url=a"])
def test_where_a_page_leads_by_itself(content: str) -> None:
    assert read_html(f'<meta http-equiv=refresh content="{content}">').refresh == "a"


def test_data_in_a_script_element_is_no_script() -> None:
    assert read_html("<script type='application/ld+json'>{}</script>a").scripts == 0
    assert read_html("<script type='application/javascript'>{}</script>a").scripts == 1
    assert read_html("<script type='application/ld+json'>{}</script><script>x</script>a").scripts == 1


def test_more_than_is_looked_at_is_said() -> None:
    assert read_html("a" * (MAX_HTML + 1)).cut
    assert len(read_html("<a href=x>" * 3000).links) == 2000
    assert read_html("<a href=x>" * 3000).cut


def test_attributes() -> None:
    assert attributes(" a=1 B='2' c = \"3\" d e= =f g=h=i") == {
        "a": "1", "b": "2", "c": "3", "d": "", "e": "=f", "g": "h=i",
    }  # fmt: skip


HOSTILE = {
    "divisions": "<div>", "fonts and paragraphs": "<font x=1><p>", "different letters": "<b x=", "list items": "<ul><li>",
    "attributes": "<p a=b ", "one tag of attributes": " a=b", "signs of equality": "=", "quotes": '"', "both quotes": "\"'",
    "quoted values": "<a x=\"", "brackets": "<", "beginnings of tags": "<a ", "beginnings of comments": "<!--",
    "ends of comments": "-->", "styles without end": "<style>", "scripts": "<script></script>", "titles": "<title>",
    "iframes": "<iframe", "references": "&amp;", "ampersands": "&", "digits": "&#1", "long digits": "9", "slashes": "</",
    "blanks": " ", "line feeds": "\n", "links": "<a href=x>", "hidden": "<p hidden>", "styles": "<p style='color : red ; '>",
    "declarations": "<!", "dashes": "-", "letters": "a", "names": "<" + "a" * 50,
    "sizes": "<p style='font-size:0'><b style='font-size:9px'>", "entities": "&CounterClockwiseContourIntegral;",
    "Outlook's": "<!--[if mso]>href-->", "endless comments of Outlook": "<!--[if mso]>href", "classes": "<p class='a b c d e f'>",
    "braces": "{", "closing braces": "}", "rules": ".a{display:none}", "selectors": ".a,", "CSS comments": "/*", "stars": "*/*",
    "at rules": "@media x{", "bare slashes": " /", "ends of raw elements": "</x>", "cut tags": "<a '<b>", "blanks among text": "a  \n",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "before", ["", "<a ", "<b ", '<a x="', "&#", "<p style='", "<style>", "<style>a{display:none}</style>"], ids=repr
)
def test_work_grows_no_faster_than_the_input(name: str, before: str) -> None:
    behind = {"<style>": "</style><p class=a>", "<b ": ">"}.get(before, "")  # of the others none ends
    work = Work(repeated_text(HOSTILE[name], before, behind), read_html, time_at=50_000)
    growth, counted = step_growth(work)
    assert growth < STEP_GROWTH, counted
    for _ in range(3):
        taken = time_growth(work)
        if taken < TIME_GROWTH:
            return
    raise AssertionError(f"{taken:.1f} times as long for four times the input")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_costs_bounded_time_and_memory(name: str) -> None:
    source = HOSTILE[name] * (MAX_HTML // len(HOSTILE[name]))
    begin = time.process_time()
    read_html(source)
    seconds = time.process_time() - begin
    tracemalloc.start()
    read_html(source[: MAX_HTML // 4])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{name}: {seconds * 1000:.0f} ms, {peak * 4 / 1e6:.0f} MB")
    assert seconds < 3
    assert peak < 60 * len(source) / 4


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from([*HOSTILE.values(), ">", "</a>", "</p>", "-->", "'", "x"]), st.text(max_size=4)))
)
def test_nothing_fails(pieces: list[str]) -> None:
    found = read_html("".join(pieces))
    assert isinstance(found, Html)
    assert "\0" not in found.text + found.hidden


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b ", "&amp;", "&lt;", "\xe4", "1"]), min_size=1),
    st.sampled_from(["p", "div", "td", "b"]),
)
def test_text_between_tags_is_what_was_written(words: list[str], tag: str) -> None:
    from html import unescape

    text = "".join(words)
    assert read_html(f"<{tag} class='x'>{text}</{tag}>").text == " ".join(unescape(text).split())
