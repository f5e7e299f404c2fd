"""What a person sees of a run: a table for the terminal, CSV, and one self-contained page."""
