"""The published table is what the code does."""

from pathlib import Path

from authmilter import truthtable

PUBLISHED = Path(__file__).parent.parent / "packaging" / "truth-table.md"


def test_the_published_table_is_up_to_date() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == truthtable.markdown()


def test_every_combination_has_its_row() -> None:
    combinations = {row[:3] for row in truthtable.rows()}
    assert len(combinations) == 4 * 4 * 4


def test_no_temperror_ever_becomes_a_refusal_for_good_where_dmarc_could_yet_pass() -> None:
    for spf, dkim, published, _other, (observe, balanced, _strict) in truthtable.rows():
        assert observe == "accept"
        if "temperror" in (spf, dkim) and published != "no record":
            assert not balanced.startswith("5")
