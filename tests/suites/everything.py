"""Every suite there is, in the order of the table."""

from tests.suites import dkim, dmarc, mime, results, spf

SUITES = (*spf.SUITES, *dkim.SUITES, *dmarc.SUITES, *results.SUITES, *mime.SUITES)
