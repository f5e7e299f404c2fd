"""The kinds of prompt: how a conversation is written for the language model, and where a slide's rows stand in it.

Each kind writes a chat template (model_store.chat_template), and only the template knows the place: whoever sends a
question sends the slide as a part of its first message.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from model_store.contracts.fields import Table

PromptTemplate = Literal["llava_v1", "vicuna_v1"]
Place = Literal["user", "front"]


class LlavaPrompt(Table):
    """LLaVA v1: a system sentence, `USER:` and `ASSISTANT:`, the rows in the first turn, before its question."""

    placeholder: ClassVar[str] = "<image>"

    kind: Literal["llava"]
    template: PromptTemplate


class ChatmlPrompt(Table):
    """Qwen's `<|im_start|>` turns. The rows stand in front of the whole text, or in the first turn before its question.

    `system` is the sentence of the system turn; an empty one makes no such turn.
    """

    placeholder: ClassVar[str] = "<|image_pad|>"

    kind: Literal["chatml"]
    # A control token would end the turn early, or stand for a slide.
    system: Annotated[str, Field(max_length=2_000, pattern=r"^([^<]|<+[^<|])*$")]
    rows: Place


PromptSpec = Annotated[LlavaPrompt | ChatmlPrompt, Field(discriminator="kind")]
