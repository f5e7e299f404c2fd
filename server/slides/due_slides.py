"""Slides whose time is over, where the operator keeps them for so many days."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class DueSlide:
    """A slide; `size_bytes` with all that was made of it."""

    id: str
    created_at: datetime
    size_bytes: int


@dataclass(frozen=True)
class DueSlides:
    """Those of a tenant, the newest first, and for how many days its slides are kept."""

    tenant: str
    days: int
    slides: tuple[DueSlide, ...]
