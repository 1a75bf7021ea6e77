"""The bench of the checks of content measures what it says."""

from pathlib import Path

from tests.bench import content
from tests.bench.corpus import Zone, generate, read
from tests.classifier.mail import raw


async def test_what_content_costs(tmp_path: Path) -> None:
    generate(tmp_path, 12)
    zone, mails = Zone((tmp_path / "dns.conf").read_text()), read(tmp_path)
    lines = await content.measure(zone, mails, tmp_path, 1, 3)
    rows = {line[:32].strip(): line[32:].split() for line in lines}
    assert sum(map(int, rows["messages"])) == 12
    assert float(rows["no content"][-1]) > 0
    assert float(rows["content, classifier has learned"][-1]) > float(rows["no content"][-1])
    shown = lines[lines.index("") + 2 :]
    assert len(shown) == 4
    shares = {line.split()[0]: [float(cell) for cell in line.split()[-2:]] for line in shown[:3]}
    assert "classifier" in shares
    assert shares["classifier"][0] > shares["classifier"][1]  # nobody else asks for features


def test_stored_mail_as_a_workload(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.eml").write_bytes(raw(number, False))
    mails = content.stored([str(tmp_path)], 3)
    assert [mail.size for mail in mails] == ["2 KB"] * 3
    assert mails[0].body
    assert mails[0].rcpt == b"<user@example.net>"
