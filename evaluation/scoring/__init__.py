"""Scoring: from logs of raw replies to numbers with their uncertainty. Asks nobody, and leaves nothing out."""
