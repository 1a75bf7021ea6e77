"""What the text is about, by words that what nobody asked for needs to say what it wants."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from authmilter.check import Tools, check
from authmilter.config.option import option
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction
from authmilter.text_words import subject_words, text_words

_SHOWN = 6  # words that are told


class _Topic(NamedTuple):
    """Words, of which `plain` count once, and `telling` twice; from `least` on, and from such a share of all different words
    on, a text is about it."""

    telling: frozenset[bytes]
    plain: frozenset[bytes]
    least: int
    share: float


def _topic(telling: str, plain: str, least: int, share: float = 0.03) -> _Topic:
    return _Topic(frozenset(telling.encode().split()), frozenset(plain.encode().split()), least, share)


_TOPICS = {
    "topic_medicine": _topic(
        "ambien cbd cialis ejaculation enlargement erectile erection erections hgh hydrocodone impotence keto levitra libido "
        "ozempic penis pharmacy phentermine propecia sildenafil tadalafil tramadol valium viagra vicodin xanax",
        "aging capsules diet doctor dosage drug drugs dysfunction fat health herbal hormone inches manhood medication "
        "medications meds natural pharmaceutical pill pills potency pounds prescription prescriptions sexual slim supplement "
        "supplements tablets weight wrinkles",
        3,
    ),
    "topic_adult": _topic(
        "blowjob cock escorts hardcore horny milf nude nudes orgasm porn porno pussy slut sluts xxx",
        "adult adults babes chat dating erotic flirt fuck fucking girl girls hot intimate lesbian lover meet photos sex sexy "
        "singles teen teens webcam women",
        4,
    ),
    "topic_fortune": _topic(
        "abacha abidjan barrister beneficiary bequeath bequeathed burkina consignment deceased diplomat diplomatic excellency "
        "faso ghana inheritance kin lagos modalities nigeria orphanage philanthropist remittance widow",
        "account assistance atm attorney bank business cancer charity compensation confidential confidentiality contract "
        "country dear death deposit deposited died dollars donate donation foreign foreigner fund funds god government "
        "investment late lottery million millions nations overdue partner proposal relationship sincerely sum transfer "
        "transferred trust united urgent usd utmost",
        7,
    ),
    "topic_prize": _topic(
        "giveaway jackpot lottery prizes raffle sweepstakes winner winners",
        "awarded chosen claim claims congratulations draw exclusive gift lucky prize redeem reward rewards selected survey "
        "ticket voucher win winning won",
        4,
    ),
    "topic_credit": _topic(
        "bankruptcy creditors homeowner homeowners lender lenders mortgage mortgages payday refinance refinancing",
        "approval approved bills borrow consolidate consolidation coverage credit debt debts equity insurance interest loan "
        "loans lowest monthly owe payment payments premium qualify quote rates warranty",
        4,
    ),
    "topic_riches": _topic(
        "downline forex millionaire mlm multilevel payouts penny",
        "boss business cash crypto bitcoin dollars earn earning earnings financial guaranteed income invest investment investor "
        "investors marketing money opportunity potential profit profitable profits proven residual rich secret secrets "
        "successful trading unlimited wealth weekly",
        7,
    ),
    "topic_removal": _topic(
        "1618 murkowski unsolicited",
        "advertisement apologize compliance complies future inconvenience interest mailings offers opt opted partner partners "
        "promotional receive receiving removal remove removed spam wish",
        6,
    ),
    "topic_sale": _topic(
        "",
        "! act affordable amazing bonus buy cheapest click customers deals discount discounts dollars exclusive expires free "
        "guarantee guaranteed here hurry incredible instant instantly limited lowest money obligation offer offers price prices "
        "quality retail risk sale satisfaction save savings shipping shop special today",
        8,
        0.06,
    ),
    "topic_replica": _topic(
        "breitling cartier gucci handbags patek prada replica replicas rolex tiffany vuitton",
        "bags brand brands jewelry luxury omega perfect price prices quality swiss watch watches",
        3,
    ),
    "topic_gambling": _topic(
        "blackjack casino casinos roulette slots wager",
        "bet bets betting bonus chips deposit free gambling game games jackpot odds play players poker spins win winnings",
        4,
    ),
    "topic_diploma": _topic(
        "accredited bachelor diploma diplomas doctorate",
        "bachelors college credentials degree degrees education experience masters mba prestigious qualifications required study "
        "tests universities university",
        4,
    ),
    "topic_addresses": _topic(
        "",
        "addresses advertise bulk campaign cd email emails extractor fresh harvest leads marketers million millions opt promote "
        "targeted verified",
        6,
    ),
    "topic_account": _topic(
        "deactivated deactivation reactivate reactivation",
        "account accounts activity alert attempt bank below billing click confirm confirmation customer dear detected expiration "
        "expire expired expires hours identity immediately limited locked notification password passwords payment protect quota "
        "restore restricted secure security storage suspended suspension termination unauthorized unusual upgrade user "
        "verification verify within",
        8,
        0.06,
    ),
    "topic_parcel": _topic(
        "courier waybill",
        "address arrived confirm customs deliver delivered delivery dhl fedex fee fees parcel pending redelivery shipment "
        "shipping usps warehouse",
        5,
    ),
    "topic_extortion": _topic(
        "masturbate masturbating masturbation pervert",
        "access bitcoin btc contacts device family friends hacked hacker hours infected malware password payment porn recorded "
        "reputation shame transfer video videos wallet webcam",
        8,
    ),
    "topic_renewal": _topic(
        "helpline mcafee norton",
        "amount antivirus cancel cancellation charge charged debited expired invoice paypal protection purchase refund renew "
        "renewal renewed squad subscription toll transaction virus",
        6,
    ),
}
# What each word counts for.
_COUNTS: dict[bytes, tuple[tuple[str, int], ...]] = {
    word: tuple(
        (symbol, 2 if word in topic.telling else 1)
        for symbol, topic in _TOPICS.items()
        if word in topic.telling or word in topic.plain
    )
    for word in frozenset().union(*[topic.telling | topic.plain for topic in _TOPICS.values()])
}
_ALL = frozenset(_COUNTS)
_FEWEST = min(topic.least for topic in _TOPICS.values()) // 2


@dataclass(frozen=True)
class Topics:
    """Good mail may be about any of it: the weights are small, and what helps a site more is to train the classifier.

    The words are English ones.
    """

    enabled: bool = option(True, "Switch it off, as a pharmacy or a pawnbroker would.")


@check(
    Stage.EOM,
    content=True,
    scores={
        "topic_medicine": 1.2,
        "topic_adult": 1.2,
        "topic_fortune": 1.2,
        "topic_prize": 0.5,
        "topic_credit": 1.0,
        "topic_riches": 1.0,
        "topic_removal": 0.5,
        "topic_sale": 0.5,
        "topic_replica": 1.2,
        "topic_gambling": 0.7,
        "topic_diploma": 1.0,
        "topic_addresses": 1.0,
        "topic_account": 0.4,
        "topic_parcel": 0.3,
        "topic_extortion": 1.5,
        "topic_renewal": 0.4,
    },
    options=Topics,
    meanings={
        "topic_medicine": "Medicine that is sold for potency, weight or sleep.",
        "topic_adult": "Pornography, and company for money.",
        "topic_fortune": "A fortune, inheritance or donation that waits in a bank.",
        "topic_prize": "A prize or reward that was won.",
        "topic_credit": "Mortgages, loans and debts.",
        "topic_riches": "How to become rich.",
        "topic_removal": "Excuses for having sent it, and how to be removed.",
        "topic_sale": "Much praise for something that is sold.",
        "topic_replica": "Watches and bags of known makers.",
        "topic_gambling": "Games for money.",
        "topic_diploma": "Degrees that are for sale.",
        "topic_addresses": "Addresses to send mail to, by the million.",
        "topic_account": "An account or mailbox that must be verified or is about to expire.",
        "topic_parcel": "A parcel that waits for a fee or an address.",
        "topic_extortion": "Films of the reader, to be paid for with coins.",
        "topic_renewal": "A subscription that was renewed, to be cancelled by a call.",
    },
    body=True,
)
def topics(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """The text, by its words, is about what is mostly written of in mail that nobody asked for."""
    shown = frozenset(subject_words(tx.message)).union(
        *[one.different for one in text_words(tx.message) if one.part.kind == "part"]
    )
    telling = shown & _ALL
    if len(telling) < _FEWEST:
        return
    counts: Counter[str] = Counter()
    for word in telling:
        for symbol, count in _COUNTS[word]:
            counts[symbol] += count
    for symbol, count in counts.items():
        topic = _TOPICS[symbol]
        if count >= topic.least and count >= topic.share * len(shown):
            words = sorted(telling & (topic.telling | topic.plain))
            yield Finding(symbol, b" ".join(words[:_SHOWN]).decode())
