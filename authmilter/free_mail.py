"""Where anybody gets a mailbox for nothing: an address there says nothing of whom somebody writes for."""

from authmilter.header_text import site

_SITES = frozenset(
    (
        "126.com", "163.com", "aol.com", "bk.ru", "bol.com.br", "daum.net", "fastmail.com", "foxmail.com", "free.fr",
        "gmail.com", "gmx.at", "gmx.ch", "gmx.com", "gmx.de", "gmx.net", "googlemail.com", "hushmail.com", "icloud.com",
        "inbox.lv", "inbox.ru", "laposte.net", "libero.it", "list.ru", "mac.com", "mail.com", "mail.ru", "mailfence.com",
        "me.com", "msn.com", "naver.com", "o2.pl", "onet.pl", "orange.fr", "passport.com", "pm.me", "proton.me",
        "protonmail.ch", "protonmail.com", "qq.com", "rambler.ru", "rediffmail.com", "rocketmail.com", "seznam.cz",
        "sina.com", "sohu.com", "t-online.de", "terra.com.br", "tuta.com", "tuta.io", "tutanota.com", "tutanota.de",
        "uol.com.br", "ukr.net", "virgilio.it", "wanadoo.fr", "web.de", "wp.pl", "yandex.com", "yandex.ru", "yeah.net",
        "ymail.com", "zohomail.com", "zohomail.eu",
    )
)  # fmt: skip
_NAMES = frozenset(("hotmail", "live", "outlook", "yahoo"))  # under many top-level domains


def is_free(domain: str) -> bool:
    """Is that lower-case domain one where anybody gets a mailbox for nothing?"""
    registered = site(domain)
    return registered in _SITES or registered.partition(".")[0] in _NAMES
