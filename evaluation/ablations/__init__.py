"""Ablations that ask no model: metrics held against each other, and slides against their reports."""
