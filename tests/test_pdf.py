"""What a PDF does by itself, and where it leads."""

import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.pdf import PDF_TRAITS, pdf_traits


def pdf(*objects: bytes) -> bytes:
    return b"%PDF-1.7\n" + b"".join(b"%d 0 obj\n%s\nendobj\n" % (n, one) for n, one in enumerate(objects, 1)) + b"%%EOF"


def packed(*objects: bytes) -> bytes:
    data = zlib.compress(b" ".join(objects))
    return b"<</Type /ObjStm /Filter /FlateDecode /Length %d>>stream\r\n%s\nendstream" % (len(data), data)


PAGE = b"<</Type/Page /Annots [3 0 R]>>"
LINK = b"<</Type/Annot/Subtype/Link/A<</S/URI/URI(https://x.example/login)>>>>"
FONT = b"<</Type/Font/BaseFont/Helvetica>>"
PICTURE = b"<</Subtype/Image>>stream\n/JavaScript /Launch in a picture is none\nendstream"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(pdf(PAGE, FONT), set(), id="a page"),
        pytest.param(pdf(PAGE, FONT, LINK), set(), id="a page with text and a link"),
        pytest.param(pdf(PAGE, PICTURE, LINK), {"link_only"}, id="a picture with a link"),
        pytest.param(pdf(packed(PAGE, LINK), PICTURE), {"link_only"}, id="the same in an object stream"),
        pytest.param(pdf(packed(PAGE, LINK, FONT)), set(), id="text in an object stream"),
        pytest.param(pdf(PAGE, PAGE, LINK), set(), id="two pages with a link"),
        pytest.param(pdf(b"<</Type/Pages>>", PAGE, LINK), {"link_only"}, id="a list of pages is no page"),
        pytest.param(pdf(PAGE, LINK, LINK.replace(b"x.", b"y.")), set(), id="links to several sites"),
        pytest.param(pdf(b"<</OpenAction<</S/JavaScript/JS(app.alert)>>>>"), {"script"}, id="JavaScript"),
        pytest.param(pdf(b"<</S/J#61vaScript>>"), {"script"}, id="JavaScript with an escape"),
        pytest.param(pdf(b"<</S/JSomething>>"), set(), id="a name that begins like one"),
        pytest.param(pdf(b"<</S/Launch/F(cmd.exe)>>"), {"launch"}, id="a program is started"),
        pytest.param(pdf(b"<</Type/EmbeddedFile>>", b"<</F(a.exe)>>"), {"program"}, id="a program in it"),
        pytest.param(pdf(b"<</EF<</F 1 0 R>>/UF(\xfe\xff\0a\0.\0j\0s)/EmbeddedFiles>>"), {"program"}, id="in UTF-16"),
        pytest.param(pdf(b"<</Type/EmbeddedFile>>", b"<</F(factur-x.xml)>>"), set(), id="an invoice as XML in it"),
        pytest.param(b"", set(), id="nothing"),
        pytest.param(packed(b"x")[:-20], set(), id="a damaged stream"),
    ],
)
def test_traits(data: bytes, expected: set[str]) -> None:
    assert set(pdf_traits(data)) == expected
    assert expected <= set(PDF_TRAITS)


def test_the_site_is_named() -> None:
    assert pdf_traits(pdf(PAGE, LINK)) == {"link_only": "x.example"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"%PDF-/EmbeddedFile" + b"/F(" * 2_700_000, id="names without end"),
        pytest.param(b"%PDF-" + b"#41" * 2_700_000, id="escapes"),
        pytest.param(b"%PDF-" + b"/ObjStm stream" * 500_000, id="streams without end"),
        pytest.param(b"%PDF-" + b"/URI (http://a" * 500_000, id="links without end"),
        pytest.param(
            b"%PDF-" + (b"/ObjStm stream\n" + zlib.compress(b"\0" * 4_000_000) + b"endstream") * 300, id="bombs"
        ),
    ],
)
def test_hostile_files_cost_little(data: bytes) -> None:
    begin = time.process_time()
    found = pdf_traits(data)
    seconds = time.process_time() - begin
    print(f"{len(data)} octets, {seconds * 1000:.0f} ms: {found}")
    assert seconds < 1


@given(st.binary(max_size=300))
def test_nothing_fails(data: bytes) -> None:
    assert set(pdf_traits(b"%PDF-/ObjStm stream" + data)) <= set(PDF_TRAITS)
