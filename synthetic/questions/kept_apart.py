"""Wordings on two sides: training draws from one, the examination asks the other."""

from dataclasses import dataclass

from synthetic.questions.findings import Split


@dataclass(frozen=True)
class Kept:
    """One topic's wordings."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    def texts(self, split: Split) -> tuple[str, ...]:
        """The wordings of one side."""
        return self.seen if split == "seen" else self.unseen
