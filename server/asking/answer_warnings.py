"""What is doubtful about an answer that is given all the same. People are told in its first event and in its last."""

from dataclasses import dataclass

from model_store.manifest import Manifest
from server.slides.slide_record import SlideRecord


@dataclass(frozen=True)
class AnswerWarning:
    """A stable code, and what is doubted and why."""

    code: str
    detail: str

    @property
    def as_data(self) -> dict[str, str]:
        """As events and bodies have it."""
        return {"code": self.code, "detail": self.detail}


def slide_warnings(record: SlideRecord) -> tuple[AnswerWarning, ...]:
    """What was doubted about the slide, or done about it, when it was encoded for the model that answers; first, that
    this model was made for other tissue."""
    return tuple(AnswerWarning(it.code, it.detail) for it in record.doubts)


def conversation_warnings(manifest: Manifest, turns: int, turns_left_out: int = 0) -> tuple[AnswerWarning, ...]:
    """What the model's weights, and the length of a conversation, make doubtful of its answer number `turns`, to which
    the model is given all earlier turns but the `turns_left_out` oldest."""
    warnings = [AnswerWarning("model_doubted", doubt) for doubt in manifest.doubts]
    trained = manifest.abilities.trained_turns
    if trained is not None and turns - turns_left_out > trained:
        warnings.append(
            AnswerWarning(
                "beyond_trained_turns",
                f"This is turn {turns} of the conversation, and the model was trained on no more than {trained}; begin "
                "a new conversation to stay within what it has learnt.",
            )
        )
    if turns_left_out:
        warnings.append(AnswerWarning("turns_left_out", _left_out(turns, turns_left_out, trained)))
    return tuple(warnings)


def _left_out(turns: int, left_out: int, trained: int | None) -> str:
    consequence = f"the oldest turns ({left_out}) were left out, and the answer does not know of them."
    if trained is not None and left_out <= turns - trained:
        return f"This is turn {turns}, and the model was trained on conversations of at most {trained}: {consequence}"
    return f"The conversation does not fit into the model's context: {consequence}"
