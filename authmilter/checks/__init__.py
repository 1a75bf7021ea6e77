"""Heuristics, one file each; every module here is found and imported by `authmilter.check.all_checks`."""
