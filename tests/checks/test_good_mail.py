"""Good mail of small senders, machines and usual programs stays far below the threshold, by all checks of content.

The messages are made up after what such programs write.  Each comes without SPF, DKIM and DMARC, as from somebody who
knows nothing of them, and all that is found of it at the end of the message must weigh less than 2, which leaves 3 to
the classifier, lists and what is found before; what came through a list, not more than 0.5.
"""

import inspect
from typing import Any

import pytest

from authmilter.addresses import parse_path
from authmilter.check import Check, all_checks
from authmilter.config import ini
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.model import Connection, Direction, Envelope, Message, Stage, Transaction
from authmilter.verdict import Action
from tests.bench.symbols import fields
from tests.checks.tools import awaited, computed, tools

CONFIG = "[identity]\nlocal_domains = corp.example\nauthserv_id = mx.corp.example\n[people]\nnames = jane.doe\n"
LOADED: Any = ini.load(None, CONFIG)
CHECKS = [
    check
    for check in all_checks()
    if check.stage is Stage.EOM and check.direction is Direction.INBOUND and check.enabled(LOADED)
]
DATE = "Tue, 14 Nov 2023 22:13:20 +0000"  # the clock of these tests
RECEIVED = f"Received: from pc (pc.shop.test [192.0.2.7])\n\tby mail.shop.test (Postfix) with ESMTPSA id 4SV\n\tfor <bob@corp.example>; {DATE}\n"
FROM_BOB = "From: Alice Miller <alice@shop.test>\nTo: Bob <bob@corp.example>\n"
TEXT = "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
LETTER = "\nHello Bob,\n\nthe order came yesterday and all is well.  Shall we meet on Tuesday?\n\nAlice\n"
BOTH = (
    'MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary="{0}"\n\n--{0}\nContent-Type: text/plain; charset=utf-8\n'
    + LETTER
    + "\n--{0}\nContent-Type: text/html; charset=utf-8\n\n<html><body><p>Hello Bob,</p><p>the order came yesterday and all is "
    "well.  Shall we meet on Tuesday?</p><p>Alice</p></body></html>\n--{0}--\n"
)
UUID = "6AD0E1C4-25AE-4F4B-9C5E-0123456789AB"
LIST = (
    "List-Id: Talk <talk.lists.test>\nList-Post: <mailto:talk@lists.test>\nPrecedence: list\n"
    "List-Unsubscribe: <mailto:talk-leave@lists.test>\nSender: talk-bounces@lists.test\n"
    f"Received: from mail.shop.test by lists.test; {DATE}\n"
)

MACHINES = {
    "cron of a server": (
        "cron@web.shop.test",
        (f"Received: by web.shop.test (Postfix, from userid 0)\n\tid 9E1; {DATE}\nFrom: root@web.shop.test (Cron Daemon)\n"
        "To: bob@corp.example\nSubject: Cron <root@web> test -x /usr/sbin/anacron || run-parts --report /etc/cron.daily\n"
        f"Message-Id: <20231114221320.9E1@web.shop.test>\nDate: {DATE}\n{TEXT}Auto-Submitted: auto-generated\n"
        "X-Cron-Env: <SHELL=/bin/sh>\n\nrm: cannot remove '/var/tmp/x': No such file or directory\n"),
    ),
    "a monitoring script": (
        "nagios@mon.shop.test",
        (f"From: nagios@mon.shop.test\nTo: bob@corp.example\nSubject: ** PROBLEM Service Alert: db1/DISK is CRITICAL **\n"
        f"Date: {DATE}\nX-Priority: 1\n\nService: DISK\nHost: db1\nState: CRITICAL\n\nDISK CRITICAL - free space: / 120 MB\n"),
    ),
    "a printer that scans": (
        "scanner@shop.test",
        ("From: scanner@shop.test\nSubject: Scan from MFP-4711\nDate: Tue, 14 Nov 2023 22:13:20 +0100\nTo: bob@corp.example\n"
        'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="xx"\n\n--xx\nContent-Type: text/plain\n\n'
        "Number of pages: 1\n\n--xx\nContent-Type: application/pdf; name=scan.pdf\nContent-Transfer-Encoding: base64\n\n"
        "JVBERi0xLjQKJeLjz9MKMSAwIG9iago8PD4+CmVuZG9iagp0cmFpbGVyCjw8Pj4K\n\n--xx--\n"),
    ),
    "a printer without a zone in its clock": (
        "printer@shop.test",
        ("From: Printer <printer@shop.test>\nTo: bob@corp.example\nSubject: Toner low\nDate: Tue, 14 Nov 2023 22:13:20\n"
        "Message-ID: <1700000000@printer>\n\nToner is low.\n"),
    ),
    "a device with a clock of 1970 and no Message-ID": (
        "ups@shop.test",
        "From: ups@shop.test\nTo: bob@corp.example\nSubject: UPS: On battery\nDate: Thu, 01 Jan 1970 00:12:00 +0000\n\nOn battery.\n",
    ),
    "a script that writes From and Subject alone": (
        "backup@shop.test",
        "From: backup@shop.test\nSubject: backup done\n\nAll 12 volumes are saved.\n",
    ),
    "a form on a web site, with the visitor in Reply-To": (
        "www-data@host.test",
        (f"Received: from localhost by host.test; {DATE}\nFrom: \"customer1984@gmail.com\" <form@host.test>\nTo: bob@corp.example\n"
        f"Reply-To: customer1984@gmail.com\nSubject: Contact form\nDate: {DATE}\nMessage-ID: <ab12@host.test>\n"
        f"X-Mailer: PHPMailer 6.8.0\n{TEXT}\nDo you have this in blue?\n"),
    ),
    "a form of a hosting provider in our name": (
        "www-data@host.test",
        (f"Received: from localhost by host.test; {DATE}\nFrom: WordPress <wordpress@corp.example>\nTo: bob@corp.example\n"
        f"Reply-To: customer@shop.test\nSubject: [Corp] New comment\nDate: {DATE}\nMessage-ID: <ab12@host.test>\n"
        f"X-Mailer: PHPMailer 6.8.0\n{TEXT}\nA new comment waits for you.\n"),
    ),
    "an old script with MSMail priority": (
        "www-data@host.test",
        (f"From: Shop <shop@host.test>\nTo: bob@corp.example\nSubject: Order 1234\nDate: {DATE}\nMessage-ID: <ab12@host.test>\n"
        f"X-Priority: 3\nX-MSMail-Priority: Normal\nX-Mailer: PHP/7.4\n{TEXT}\nThank you for your order.\n"),
    ),
    "a bounce": (
        "",
        (f"Received: by mail.shop.test (Postfix)\n\tid 7A2; {DATE}\nDate: {DATE}\nFrom: MAILER-DAEMON@mail.shop.test (Mail Delivery System)\n"
        "Subject: Undelivered Mail Returned to Sender\nTo: bob@corp.example\nAuto-Submitted: auto-replied\nMIME-Version: 1.0\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b1"\nMessage-Id: <20231114.7A2@mail.shop.test>\n\n'
        "--b1\nContent-Description: Notification\nContent-Type: text/plain; charset=us-ascii\n\nI'm sorry, it could not be delivered.\n\n"
        "--b1\nContent-Description: Delivery report\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mail.shop.test\n\n"
        "Final-Recipient: rfc822; x@shop.test\nAction: failed\nStatus: 5.1.1\n\n--b1\nContent-Type: text/rfc822-headers\n\n"
        "From: Bob <bob@corp.example>\nTo: x@shop.test\nSubject: Hello\nMessage-ID: <1@corp.example>\n\n--b1--\n"),
    ),
    "an answer of somebody on holiday": (
        "",
        (f"{RECEIVED}From: Alice <alice@shop.test>\nTo: bob@corp.example\nSubject: Auto: Re: Offer\nDate: {DATE}\n"
        "Message-ID: <1@shop.test>\nIn-Reply-To: <7@corp.example>\nAuto-Submitted: auto-replied\nPrecedence: bulk\n"
        f"{TEXT}\nI am away until Monday.\n"),
    ),
    "a ticket system": (
        "help@desk.test",
        (f"Received: from app by desk.test; {DATE}\nFrom: Support <help@desk.test>\nTo: bob@corp.example\n"
        f"Subject: [#4711] Re: Printer!\nDate: {DATE}\nMessage-ID: <4711@desk.test>\nAuto-Submitted: auto-generated\n{TEXT}\nWe look at it.\n"),
    ),
    "a confirmation with a link": (
        "bounce-12345@mail.host.test",
        (f"Received: from app by mail.host.test; {DATE}\nFrom: Host <no-reply@host.test>\nTo: bob@corp.example\n"
        f"Subject: Confirm your address\nDate: {DATE}\nMessage-ID: <ab@mail.host.test>\n{TEXT}\n"
        "Please open https://www.host.test/confirm?token=0123456789abcdef to confirm.\n"),
    ),
}  # fmt: skip

PROGRAMS = {
    "mutt": f"{RECEIVED}Date: {DATE}\n{FROM_BOB}Subject: order\nMessage-ID: <ZVPxYBcX@pc.shop.test>\nContent-Disposition: inline\nUser-Agent: Mutt/2.2.9\n{TEXT}{LETTER}",
    "Thunderbird": f"{RECEIVED}Message-ID: <{UUID.lower()}@shop.test>\nDate: {DATE}\nUser-Agent: Mozilla Thunderbird\nContent-Language: en-US\n{FROM_BOB}Subject: order\n{TEXT}{LETTER}",
    "Apple Mail": f"{RECEIVED}{FROM_BOB}Subject: order\nMessage-Id: <{UUID}@shop.test>\nDate: {DATE}\nX-Mailer: Apple Mail (2.3731)\n" + BOTH.format("Apple-Mail=_1"),
    "an iPhone": f"{RECEIVED}{FROM_BOB}Subject: Re: order\nIn-Reply-To: <1@corp.example>\nMessage-Id: <{UUID}@shop.test>\nDate: {DATE}\nX-Mailer: iPhone Mail (21B91)\n{TEXT}\nYes, that suits me.\n\nSent from my iPhone\n",
    "an iPhone behind Exchange": f"{RECEIVED}{FROM_BOB}Subject: order\nThread-Topic: order\nThread-Index: AdoXabc=\nMessage-ID: <0123456789abcdef0123456789ABCDEF@EX01.shop.local>\nDate: {DATE}\nX-Mailer: iPhone Mail (21B91)\n{TEXT}{LETTER}",
    "Outlook with a provider": f"Received: from DESKTOP-4F7A (p1.isp.test [192.0.2.9])\n\tby mail.shop.test with ESMTPSA id 1; {DATE}\n{FROM_BOB}Subject: order\nDate: {DATE}\nMessage-ID: <001401da174b$8c1e0d70$a45a2850$@shop.test>\nX-Mailer: Microsoft Outlook 16.0\nThread-Index: AdoXS4we\nContent-Language: en-gb\n" + BOTH.format("----=_NextPart_000_0015_01DA174B.8C1E3480"),
    "Outlook, marked as urgent": f"{RECEIVED}{FROM_BOB}Subject: order\nDate: {DATE}\nMessage-ID: <001401da174b$8c1e0d70$a45a2850$@shop.test>\nX-Mailer: Microsoft Outlook 16.0\nX-Priority: 1 (Highest)\nX-MSMail-Priority: High\nImportance: High\nThread-Index: AdoXS4we\nX-MimeOLE: Produced\n{TEXT}{LETTER}",
    "Exchange": f"Received: from EX01.shop.local ([fe80::1]) by EX01.shop.local\n ([fe80::1%3]) with mapi id 15.1; {DATE}\n{FROM_BOB}Subject: order\nThread-Topic: order\nThread-Index: AdoXS4we\nDate: {DATE}\nMessage-ID: <0123456789abcdef0123456789abcdef@shop.test>\nAccept-Language: en-US\nX-MS-Has-Attach:\nX-MS-TNEF-Correlator:\n" + BOTH.format("_000_0123shoptest_"),
    "Gmail": f"Received: by mail-yw1-f1.google.com with SMTP id a1; {DATE}\nX-Gm-Message-State: AOJu0Y\nFrom: Alice Miller <alice1984@gmail.com>\nDate: {DATE}\nMessage-ID: <CAF+abc@mail.gmail.com>\nSubject: order\nTo: Bob <bob@corp.example>\n" + BOTH.format("000000000000abcd"),
    "a free mailbox in China": f"Received: from alice by m1.163.com; {DATE}\nFrom: alice <alice19840512@163.com>\nTo: bob@corp.example\nSubject: =?GBK?B?xOO6ww==?=\nDate: Wed, 15 Nov 2023 06:13:20 +0800 (CST)\nX-Priority: 3\nX-Mailer: Coremail Webmail\nMessage-ID: <4a1b.2c.18bd.Coremail.alice19840512@163.com>\n{TEXT}\n你好\n",
    "a mail program for Android": f"{RECEIVED}Date: {DATE}\n{FROM_BOB}Subject: order\nUser-Agent: K-9 Mail for Android\nMessage-ID: <{UUID}@shop.test>\n{TEXT}{LETTER}",
    "an invitation": f"{RECEIVED}{FROM_BOB}Subject: Invitation: Lunch @ Tue Nov 14, 2023 (bob@corp.example)\nSender: Calendar <calendar@cal.test>\nReply-To: Alice Miller <alice@shop.test>\nMessage-ID: <calendar-1@cal.test>\nDate: {DATE}\nMIME-Version: 1.0\nContent-Type: text/calendar; charset=utf-8; method=REQUEST\n\nBEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:Lunch\nEND:VEVENT\nEND:VCALENDAR\n",
    "UTF-8 in the header of a small program": f"{RECEIVED}From: Jürgen <j@shop.test>\nTo: bob@corp.example\nSubject: Grüße\nDate: {DATE}\nMessage-ID: <1@shop.test>\n{TEXT}{LETTER}",
    "loud people": f"{RECEIVED}{FROM_BOB}Subject: HAPPY BIRTHDAY!!\nDate: {DATE}\nMessage-ID: <1@shop.test>\n{TEXT}{LETTER}",
    "one to several in Bcc": f"{RECEIVED}From: Alice <alice@shop.test>\nTo: undisclosed-recipients:;\nSubject: Party\nDate: {DATE}\nMessage-ID: <1@shop.test>\n{TEXT}{LETTER}",
    "a shop with answers to a free mailbox": f"{RECEIVED}{FROM_BOB}Reply-To: alice.shop@gmail.com\nSubject: order\nDate: {DATE}\nMessage-ID: <1@shop.test>\n{TEXT}{LETTER}",
    "a newsletter of a club": f"{RECEIVED}From: Club <news@club.test>\nTo: bob@corp.example\nSubject: November news\nDate: {DATE}\nMessage-ID: <1@club.test>\nPrecedence: bulk\nList-Unsubscribe: https://club.test/leave\n{TEXT}{LETTER}",
}  # fmt: skip

LISTS = {
    "a plain list": f"{LIST}{FROM_BOB}Reply-To: talk@lists.test\nSubject: [Talk] order\nDate: {DATE}\nMessage-ID: <1@shop.test>\n{TEXT}{LETTER}",
    "a list that rewrites From": f"{LIST}From: Alice Miller via Talk <talk@lists.test>\nReply-To: alice@gmail.com\nTo: talk@lists.test\nSubject: Re: order\nIn-Reply-To: <0@a.test>\nDate: {DATE}\nMessage-ID: <1@shop.test>\n{TEXT}{LETTER}",
    "one that shows the address": f"{LIST}From: \"'alice@shop.test' via Talk\" <talk@lists.test>\nTo: talk@lists.test\nSubject: order\nDate: {DATE}\nMessage-ID: <1@shop.test>\n{TEXT}{LETTER}",
    "one that one of us wrote to": f"{LIST}From: \"'bob@corp.example' via Talk\" <talk@lists.test>\nTo: talk@lists.test\nSubject: order\nDate: {DATE}\nMessage-ID: <1@corp.example>\n{TEXT}{LETTER}",
    "one that keeps the From of one of us": f"{LIST}From: Jane Doe <jane@corp.example>\nTo: talk@lists.test\nSubject: order\nDate: {DATE}\nMessage-ID: <1@corp.example>\n{TEXT}{LETTER}",
    "a list within a list": f"{LIST}List-Id: <all.lists.test>\nFrom: Alice <alice@shop.test>\nTo: talk@lists.test\nSubject: order\nDate: {DATE}\nMessage-ID: <1@shop.test>\n{TEXT}{LETTER}",
    "a list that takes out what Gmail wrote": f"{LIST}From: Alice <alice@gmail.com>\nTo: talk@lists.test\nSubject: order\nDate: {DATE}\nMessage-ID: <CAF+a@mail.gmail.com>\n{TEXT}{LETTER}",
}  # fmt: skip


def transaction(sender: str, text: str) -> Transaction:
    head, _, body = text.partition("\n\n")
    raw = body.replace("\n", "\r\n").encode()
    message = Message(tuple(fields(head.encode())), body_size=len(raw), body=raw)
    recipient = parse_path(b"<bob@corp.example>")
    assert recipient is not None
    return Transaction(
        connection=Connection(mta_name="mx.corp.example"),
        message=message,
        envelope=Envelope(parse_path(f"<{sender}>".encode()), (recipient,)),
        results=(AuthResult("spf", Result.NONE), AuthResult("dkim", Result.NONE), AuthResult("dmarc", Result.NONE)),
    )


async def weights(tx: Transaction) -> dict[str, float]:
    """What each symbol of the content weighs for the message."""
    weighed: dict[str, float] = {}
    for check in CHECKS:
        for finding in await _findings(check, tx):
            weight = check.symbols(LOADED).get(finding.symbol, 0.0)
            assert not isinstance(weight, Action), finding
            weighed[finding.symbol] = weight * finding.strength
    return weighed


async def _findings(check: Check, tx: Transaction) -> list[Finding]:
    run: Any = check.run
    given = tools(check.name, config=LOADED)
    return await awaited(run, tx, given) if inspect.isasyncgenfunction(run) else computed(run, tx, given)


@pytest.mark.parametrize("name", MACHINES)
async def test_mail_of_machines(name: str) -> None:
    found = await weights(transaction(*MACHINES[name]))
    assert sum(found.values()) < 2.0, found


@pytest.mark.parametrize("name", PROGRAMS)
async def test_mail_of_people(name: str) -> None:
    found = await weights(transaction("alice@shop.test", PROGRAMS[name]))
    assert sum(found.values()) < 2.0, found


@pytest.mark.parametrize("name", LISTS)
async def test_mail_of_lists(name: str) -> None:
    found = await weights(transaction("talk-bounces@lists.test", LISTS[name]))
    assert sum(found.values()) <= 0.51, found


async def test_what_is_not_good_weighs_more() -> None:
    fraud = 'From: "Jane Doe jane@corp.example" <x4711@mail.evil.test>\nReply-To: jane@gmail.com\nSubject: URGENT TRANSFER!!\n\nPay now.\n'
    assert sum((await weights(transaction("x@evil.test", fraud))).values()) > 5.0
