"""Asking: what is asked under which condition, of whom, and the log of replies. Nothing here knows what is right."""
