"""Kinds of cells by number, as the cell network and the file of levels have them, and their colours."""

from typing import Final

# PanNuke's; 0 where all pixels of a cell are background to the network that tells kinds.
CELL_KINDS: Final = ("unclassified", "neoplastic", "inflammatory", "connective", "dead", "epithelial")
# RGB, unlike H&E's pink and purple and unlike each other, also in lightness: red and green are not all that differs.
CELL_RGB: Final = {
    "unclassified": (90, 90, 90),
    "neoplastic": (215, 25, 28),
    "inflammatory": (35, 215, 90),
    "connective": (0, 190, 255),
    "dead": (255, 240, 0),
    "epithelial": (255, 140, 0),
}
