"""Every suite there is, in the order of the table."""

from tests.suites import arc, dkim, dmarc, mime, results, spf

SUITES = (*spf.SUITES, *dkim.SUITES, *arc.SUITES, *dmarc.SUITES, *results.SUITES, *mime.SUITES)
