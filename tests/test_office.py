"""What documents of Office do by themselves."""

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.filetype import file_type
from authmilter.office import MAX_SOURCE, TRAITS, _source, traits
from tests.compound_files import compound, ooxml, packed_source, project, relation

RUNS = b'Sub AutoOpen()\r\n  Shell "calc.exe"\r\nEnd Sub\r\n'
HARMLESS = b"Sub Sum()\r\n  Range(1).Value = 2\r\nEnd Sub\r\n"
LARGE = project(b"' words of a comment\r\n" * 500 + RUNS)


def sheets(*kinds: int) -> bytes:
    """The beginning of a workbook with sheets of these kinds; 1 is one of macros."""
    records = b"".join(
        struct.pack("<HHIBB", 0x85, 12, 0, 0, kind) + b"\4\0Tabl" for kind in kinds
    )  # position, state, kind, name
    return struct.pack("<HH", 0x809, 0) + records + struct.pack("<HH", 0x0A, 0)


def package(name: str) -> bytes:
    return struct.pack("<IH", 100, 2) + name.encode() + b"\0C:\\x\0" + b"\0" * 50


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(compound({"WordDocument": b"x" * 5000}), set(), id="a document"),
        pytest.param(project(HARMLESS), {"macro"}, id="macros"),
        pytest.param(project(RUNS), {"macro", "macro_autorun", "macro_calls"}, id="macros that run"),
        pytest.param(LARGE, {"macro", "macro_autorun", "macro_calls"}, id="macros in a large stream"),
        pytest.param(
            compound({"_VBA_PROJECT": b"\0Document_Open\0", "M": b"x"}),
            {"macro", "macro_autorun"},
            id="by what is left",
        ),
        pytest.param(compound({"Workbook": sheets(0, 0)}), set(), id="a workbook"),
        pytest.param(compound({"Workbook": sheets(0, 1)}), {"macro"}, id="a workbook with Excel 4.0 macros"),
        pytest.param(compound({"EncryptedPackage": b"x", "EncryptionInfo": b"x"}), {"encrypted"}, id="encrypted"),
        pytest.param(
            compound({"Workbook": struct.pack("<HHHHI", 0x809, 0, 0x2F, 4, 0)}),
            {"encrypted"},
            id="an encrypted workbook",
        ),
        pytest.param(compound({"Equation Native": b"x"}), {"object"}, id="the Equation Editor"),
        pytest.param(compound({"\1Ole10Native": package("a.pdf.exe")}), {"object"}, id="a program in a document"),
        pytest.param(compound({"\1Ole10Native": package("a.pdf")}), set(), id="a file in a document"),
        pytest.param(ooxml({"word/document.xml": b"<w:t>AutoOpen and Shell"}), set(), id="a docx"),
        pytest.param(
            ooxml({"word/vbaProject.bin": project(RUNS)}), {"macro", "macro_autorun", "macro_calls"}, id="a docm"
        ),
        pytest.param(ooxml({"word/vbaProject.bin": b"x"}), {"macro"}, id="a docm that is damaged"),
        pytest.param(
            ooxml({"word/media/a.dat": project(RUNS)}), {"macro", "macro_autorun", "macro_calls"}, id="by another name"
        ),
        pytest.param(ooxml({"xl/macrosheets/sheet1.xml": b"x"}), {"macro"}, id="Excel 4.0 macros"),
        pytest.param(
            ooxml({"word/_rels/settings.xml.rels": relation("attachedTemplate", "https://x.example/a.dotm")}),
            {"remote"},
            id="a template from elsewhere",
        ),
        pytest.param(
            ooxml({"word/_rels/document.xml.rels": relation("oleObject", "mhtml:http://x.example!x-usc:http://x")}),
            {"remote"},
            id="an object from elsewhere",
        ),
        pytest.param(
            ooxml({"word/_rels/settings.xml.rels": relation("attachedTemplate", "file:///C:\\t\\Normal.dotm")}),
            set(),
            id="a template of one's own",
        ),
        pytest.param(
            ooxml({"word/_rels/document.xml.rels": relation("hyperlink", "https://x.example")}), set(), id="a link"
        ),
        pytest.param(
            ooxml({"word/document.xml": b'<w:instrText>DDEAUTO "c:\\\\cmd.exe" "/k x"</w:instrText>'}),
            {"dde"},
            id="DDE",
        ),
        pytest.param(
            ooxml({"xl/externalLinks/externalLink1.xml": b'<ddeLink ddeService="cmd">'}), {"dde"}, id="DDE in a sheet"
        ),
        pytest.param(
            ooxml({"word/embeddings/oleObject1.bin": compound({"Equation Native": b"x"})}), {"object"}, id="an object"
        ),
        pytest.param(b"{\\rtf1 text about AutoOpen}", set(), id="RTF"),
        pytest.param(b"{\\rtf1{\\*\\template https://x.example/a}}", {"remote"}, id="RTF with a template"),
        pytest.param(b"{\\rtf1{\\object\\objupdate{\\*\\objdata 0105}}}", {"object"}, id="RTF with an object"),
        pytest.param(b"{\\rtf1{\\object\\objemb{\\*\\objdata 0105}}}", set(), id="RTF with a picture"),
        pytest.param(
            b"{\\rtf1{\\*\\objdata 0b000000 45 71\n7561 74696F6E2E3300}}", {"object"}, id="RTF with the Equation Editor"
        ),
        pytest.param(b'{\\rtf1{\\field{\\*\\fldinst DDEAUTO c:\\\\cmd "x"}}}', {"dde"}, id="RTF with DDE"),
    ],
)
def test_traits(data: bytes, expected: set[str]) -> None:
    found = traits(data, file_type(data))
    assert set(found) == expected
    assert expected <= set(TRAITS)


def test_what_is_found_is_named() -> None:
    assert traits(project(RUNS), "office-ole") == {"macro": "VBA", "macro_autorun": "AutoOpen", "macro_calls": "Shell"}


def test_other_files_have_no_traits() -> None:
    assert traits(b"AutoOpen", "") == {}


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        pytest.param(
            "012FB000236161616263646582660070616768696A013808616B6C00306D6E6F7006710270041072737475761077787 97A003C",
            b"#aaabcdefaaaaghijaaaaaklaaamnopqaaaaaaaaaaaarstuvwxyzaaa",
            id="[MS-OVBA] section 3.2.2",
        ),
        pytest.param("0103B002614500", b"a" * 73, id="[MS-OVBA] section 3.2.3"),
    ],
)
def test_sources_are_unpacked(packed: str, text: bytes) -> None:
    assert _source(bytes.fromhex(packed.replace(" ", "")), 0, 1000) == text


def test_sources_of_several_chunks_are_unpacked() -> None:
    text = bytes(range(256)) * 60
    assert _source(packed_source(text), 0, MAX_SOURCE) == text
    assert len(_source(packed_source(text), 0, 1000)) < 1000 + 4096 + 4096


def loops() -> bytes:
    """A directory whose sectors follow each other in a circle."""
    data = bytearray(LARGE)
    data[512 : 512 + 8192] = struct.pack("<2048I", *(16 + (n - 15) % 8 for n in range(2048)))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(loops(), "office-ole", id="sectors in a circle"),
        pytest.param(
            compound({"_VBA_PROJECT": b"x", **{f"m{n}": b"\0\0\0\1\xff\xbf\0Attribut" + b"\xff\x0f" * 1500 for n in range(900)}}, 64),
            "office-ole",
            id="900 modules that repeat themselves",
        ),
        pytest.param(
            ooxml({f"{n}.rels": b"<Relationship " * 40_000 for n in range(60)}), "office-zip", id="relations without end"
        ),
        pytest.param(ooxml({f"{n}.bin": LARGE for n in range(300)}), "office-zip", id="300 projects"),
        pytest.param(ooxml({f"{n}": b"x" for n in range(9000)}), "office-zip", id="9,000 parts"),
        pytest.param(b"{\\rtf1\\objdata " + b"4 " * 1_000_000, "rtf", id="RTF that nearly names an editor"),
        pytest.param(b"{\\rtf1\\*\\template " + b"https:" * 300_000, "rtf", id="RTF with a long template"),
    ],
)  # fmt: skip
def test_hostile_documents_cost_little(data: bytes, kind: str) -> None:
    begin = time.process_time()
    found = traits(data, kind)
    seconds = time.process_time() - begin
    print(f"{len(data)} octets, {seconds * 1000:.0f} ms: {found}")
    assert seconds < 1


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([project(RUNS), compound({"Workbook": sheets(1), "\1Ole10Native": package("a.exe")})]),
    st.lists(st.tuples(st.integers(0, 14_000), st.integers(0, 255)), max_size=20),
    st.integers(0, 14_000),
)
def test_nothing_fails(data: bytes, changes: list[tuple[int, int]], size: int) -> None:
    damaged = bytearray(data)
    for at, octet in changes:
        damaged[at % len(damaged)] = octet
    assert set(traits(bytes(damaged), "office-ole")) <= set(TRAITS)
    assert set(traits(bytes(damaged[:size]), "office-ole")) <= set(TRAITS)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=8))
def test_no_header_fails(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(project(RUNS))
    for at, octet in changes:
        damaged[at] = octet
    assert set(traits(bytes(damaged), "office-ole")) <= set(TRAITS)
