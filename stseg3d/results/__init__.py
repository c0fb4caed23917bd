"""Folders of results: the journal of a batch, the notes beside labels, and stamps of files. Whatever stands in them is checked."""

from stseg3d.results.journal import CaseOutcome, OutcomeLog, write_summary

__all__ = ["CaseOutcome", "OutcomeLog", "write_summary"]
