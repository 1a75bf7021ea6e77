"""Links that do not lead where they seem to, or hide where they lead."""

import re
from collections.abc import Iterator

from authmilter.addresses import author
from authmilter.check import Tools, check
from authmilter.checks.brands import is_disguised
from authmilter.evidence import Finding
from authmilter.header_text import site
from authmilter.model import Stage, Transaction
from authmilter.networks import names_contain
from authmilter.urls import Target, Url, registered, targets

# Where anybody gets a short name for any URL.
_SHORTENERS = frozenset(
    (
        "2no.co", "adf.ly", "bit.do", "bit.ly", "bitly.com", "bl.ink", "buff.ly", "clck.ru", "cli.re", "cutt.ly", "dlvr.it",
        "fb.me", "gg.gg", "goo.gl", "goo.su", "han.gl", "ift.tt", "iplogger.com", "iplogger.org", "is.gd", "j.mp", "kutt.it", "l.ead.me", "lnkd.in",
        "me2.do", "n9.cl", "ow.ly", "qrco.de", "rb.gy", "rebrand.ly", "rotf.lol", "s.id", "shorte.st", "shorten.is",
        "shorturl.at", "snip.ly", "soo.gd", "spr.ly", "surl.li", "t.co", "t.ly", "tiny.cc", "tinyurl.com", "tr.im",
        "trib.al", "u.to", "urlz.fr", "v.gd", "vk.cc", "vo.la", "x.co", "zpr.io",
    )
)  # fmt: skip
# Where anybody puts up pages, or files that browsers show, without a domain of their own.
_HOSTING = (
    ".000webhostapp.com", ".amazonaws.com", ".appspot.com", ".azurewebsites.net", ".backblazeb2.com", ".blogspot.com",
    ".cloudfront.net", ".core.windows.net", ".azureedge.net", ".azurefd.net", ".digitaloceanspaces.com", ".duckdns.org", ".firebaseapp.com", ".fly.dev", ".framer.app",
    ".framer.website", ".ghost.io", ".github.io", ".gitbook.io", ".glitch.me", ".godaddysites.com", ".herokuapp.com", ".hostingerapp.com", ".ipfs.io",
    ".jimdosite.com", ".jotform.com", ".mybluehost.me", ".myftp.org", ".myportfolio.com", ".mystrikingly.com", ".netlify.app", ".ngrok.io",
    ".ngrok-free.app", ".notion.site", ".onrender.com", ".pages.dev", ".plesk.page", ".preview-domain.com", ".r2.dev", ".repl.co", ".run.app", ".square.site",
    ".surge.sh", ".typeform.com", ".ukit.me", ".vercel.app", ".web.app", ".webflow.io", ".weebly.com", ".weeblysite.com", ".wixsite.com", ".wixstudio.io",
    ".wordpress.com", ".workers.dev", ".yolasite.com", ".zapto.org", "dweb.link", "firebasestorage.googleapis.com", "forms.gle", "ipfs.io",
    "sites.google.com", "storage.cloud.google.com", "storage.googleapis.com", "telegra.ph",
)  # fmt: skip
# Sites that send whoever comes wherever the query says, by the beginning of their path.
_REDIRECTORS = {
    "google": ("/url", "/amp/", "/aclk", "/local_url", "/travel/clk", "/m?", "/pagead/", "/imgres", "/search?btni"),
    "googleadservices.com": ("/pagead/",),
    "doubleclick.net": ("/",),
    "bing.com": ("/ck/", "/aclk", "/news/apiclick"),
    "youtube.com": ("/redirect", "/attribution_link", "/logout"),
    "facebook.com": ("/l.php", "/flx/warn", "/sharer"),
    "instagram.com": ("/?u=", "/linkshim"),
    "linkedin.com": ("/slink", "/redir", "/safety/go", "/authwall"),
    "yahoo.com": ("/_ylt", "/ylt", "/cbclk"),
    "baidu.com": ("/link", "/baidu.php"),
    "yandex.ru": ("/clck", "/redir"),
    "yandex.com": ("/clck", "/redir"),
    "vk.com": ("/away",),
    "steamcommunity.com": ("/linkfilter",),
    "reddit.com": ("/t3_", "/?url"),
    "umblr.com": ("/redirect",),
    "medium.com": ("/r/",),
    "duckduckgo.com": ("/l/",),
    "slack-redir.net": ("/link",),
    "href.li": ("/",),
    "dartsearch.net": ("/link",),
    "adnxs.com": ("/click",),
    "awstrack.me": ("/l0/",),
    "mailanyone.net": ("/",),
    "snapchat.com": ("/redirect",),
    "cutestat.com": ("/",),
    "msn.com": ("/",),
    "live.com": ("/",),
    "translate.goog": ("/",),
}
_SHOWN = re.compile(
    r"(?:https?:/{1,2})?+(?:[^\s/@]{0,100}@)?((?:[a-z0-9\u00a1-\uffff-]{1,63}\.){1,8}(?:com|net|org|info|biz|edu|gov|[a-z]{2}|xn--[a-z0-9-]{2,40}|app|dev|shop|online|top|xyz|club|site))"
    r"(?=[:/?#\s.]|$)",
    re.IGNORECASE,
)
_INSIDE = re.compile(r"(?:^|[.-])(?:com|net|org|www)(?:[.-])(?=.*\.)")
_IMAGE = re.compile(r"\.(?:exe|scr|msi|js|vbs|hta|apk|jar|bat|cmd|ps1|iso|img|vhd|lnk|zip|rar|7z)(?:[?#]|$)", re.IGNORECASE)
_TLD = frozenset(("top","xyz","shop","click","icu","online","site","store","live","buzz","cfd","sbs","rest","bond","monster","cyou","quest","fun","space","website","tk","ml","ga","cf","gq","work","life","world","today","club","vip","ru","cn","info","biz","pw","cc","ws","link","pro","su","in"))


@check(
    Stage.EOM,
    scores={n: 0.0 for n in "link_differs link_differs_nested link_ip link_ip_number link_disguised link_punycode link_shortener link_user link_data link_script link_odd link_port link_port_bad link_domain_inside link_hosting link_ipfs link_redirector link_nested link_nested_differs link_fragment_address link_recipient link_recipient_query link_program link_hidden link_all_foreign link_some_foreign link_only_one link_labels link_long link_tld link_nohost link_hyphens link_http link_refresh link_form link_frame link_encoded link_all_same link_digits".split()},
)
def links(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """X."""
    found = targets(tx.message)
    seen = {}
    own = {site(d) for d in author(tx.message).domains}
    to = [f"{p.domain}" for p in tx.envelope.forward_paths[:1]]
    raw_to = b" ".join(f.value for f in tx.message.all(b"to")[:1])[:200].decode("latin-1")
    import re as _re
    to_addr = _re.findall(r"[\w.+-]+@[\w.-]+", raw_to)[:2]
    def add(s, d=""):
        seen.setdefault(s, str(d))
    clickable = [t for t in found if t.tag in ("a", "area", "text", "form", "button", "refresh")]
    foreign = 0
    sites = set()
    for t in clickable:
        u = t.url
        if u.scheme == "data":
            add("link_data", t.tag); continue
        if u.scheme in ("javascript", "vbscript"):
            add("link_script", t.tag); continue
        if not u.host:
            if u.written: add("link_nohost", u.written)
            continue
        s = registered(u)
        sites.add(s)
        if s not in own:
            foreign += 1
        if u.address is not None:
            add("link_ip", u.host)
            if u.written.removesuffix(".") != u.host and not u.written.startswith("["):
                add("link_ip_number", u.written)
        if u.user: add("link_user", u.user + "@" + u.host)
        if u.odd: add("link_odd", u.written)
        if u.port > 0 and u.port not in (80, 443): add("link_port", u.port)
        if u.port < 0: add("link_port_bad", u.written)
        if "xn--" in u.host:
            add("link_punycode", u.host)
            if is_disguised(u.host): add("link_disguised", u.host)
        if s in _SHORTENERS and len(u.rest) > 1: add("link_shortener", u.host)
        if ("." + u.host).endswith(_HOSTING): add("link_hosting", u.host)
        if "/ipfs/" in u.rest or ".ipfs." in u.host: add("link_ipfs", u.host)
        if u.host.count(".") >= 5: add("link_labels", u.host)
        if len(u.host) > 40: add("link_long", u.host)
        if u.host.count("-") >= 3: add("link_hyphens", u.host)
        if u.scheme == "http": add("link_http", u.host)
        if t.tag == "refresh": add("link_refresh", u.host)
        if t.tag == "form": add("link_form", u.host)
        if t.hidden: add("link_hidden", u.host)
        if u.host.rpartition(".")[2] in _TLD: add("link_tld", u.host)
        if _INSIDE.search(u.host[: -len(s) or None].rstrip(".")+"." if u.host != s else "") : add("link_domain_inside", u.host)
        if sum(map(str.isdigit, s)) >= 4 and u.address is None: add("link_digits", u.host)
        r = u.rest
        if _IMAGE.search(r): add("link_program", r[-30:])
        path = r.lower()
        name = s.partition(".")[0]
        if (path.startswith(_REDIRECTORS.get(name if name == "google" else s, ("\0",))) and (t.inner or "." in r)):
            add("link_redirector", u.host + r[:40])
        if t.inner:
            add("link_nested", u.host)
            if registered(t.inner[-1]) not in (s, *own): add("link_nested_differs", u.host + " -> " + t.inner[-1].host)
        if r.count("%") > 10: add("link_encoded", r[:50])
        if "#" in r and "@" in r.partition("#")[2]: add("link_fragment_address", r[-50:])
        for a in to_addr:
            if a.lower() in path:
                add("link_recipient_query", r[-50:])
        if t.text and "." in t.text:
            m = _SHOWN.match(t.text)
            if m and "@" not in t.text:
                shown = site(m[1].lower())
                if shown != s and shown not in [registered(i) for i in t.inner]:
                    add("link_differs", m[1] + " -> " + u.host)
                elif shown != s: add("link_differs_nested", m[1])
    n = sum(1 for t in clickable if t.url.host)
    if n and foreign == n: add("link_all_foreign", n)
    elif foreign: add("link_some_foreign", n)
    if n == 1: add("link_only_one")
    if len(sites) == 1 and n > 3: add("link_all_same", n)
    if any(t.tag in ("iframe", "frame") for t in found): add("link_frame")
    for s, d in seen.items():
        yield Finding(s, d)
