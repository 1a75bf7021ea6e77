"""Weights of symbols as they were fitted to mail that is known to be good or spam.

Written by ``python -m tests.bench.fit_scores``, which also says how; not to be edited by hand.
"""

from collections.abc import Mapping

FITTED: Mapping[str, float] = {}
