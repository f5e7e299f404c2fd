"""The chunks of vLLM's streamed answer: only the fields that are read, checked before they are believed."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, ValidationError

from server.errors import LanguageModelFailed


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Delta(_Part):
    """New text of the answer."""

    content: str | None = None


class Choice(_Part):
    """One choice; we ask for one."""

    delta: Delta = Delta()
    finish_reason: str | None = None


class PromptTokensDetails(_Part):
    """`multimodal_tokens["image"]` is how many slide tokens vLLM used."""

    cached_tokens: int | None = None
    multimodal_tokens: dict[str, int] | None = None


class ReportedUsage(_Part):
    """Token counts so far."""

    prompt_tokens: int
    completion_tokens: int | None = None
    prompt_tokens_details: PromptTokensDetails | None = None


class Chunk(_Part):
    """One `data:` line."""

    choices: tuple[Choice, ...] = ()
    usage: ReportedUsage | None = None
    error: object = None

    @property
    def has_progress(self) -> bool:
        """Whether the engine has made something; vLLM's first chunk, with the role alone, comes without it."""
        return self.usage is not None or any(choice.delta.content or choice.finish_reason for choice in self.choices)


def read_chunk(payload: bytes) -> Chunk:
    """The chunk in a `data:` line.

    Raises:
        LanguageModelFailed: it is none, or reports an error: vLLM tells of a dead engine in a stream that began
            with 200.
    """
    try:
        chunk = Chunk.model_validate_json(payload)
    except ValidationError as error:
        raise LanguageModelFailed("The language model's answer cannot be read; ask again.") from error
    if chunk.error is not None:
        raise LanguageModelFailed("The language model broke off; ask again.")
    return chunk


class ChunkReader:
    """Finds the chunks in a stream of server-sent events that comes in any pieces."""

    def __init__(self) -> None:
        self.is_done = False
        self._rest = b""

    def read(self, data: bytes) -> Iterator[Chunk]:
        """The chunks that are whole with these bytes; nothing is read behind `[DONE]`.

        Raises:
            LanguageModelFailed: as read_chunk.
        """
        # Lines as server-sent events have them. Python's own also end at U+0085 and U+2028, which answers may hold.
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                payload = line[5:].strip()
                if payload == b"[DONE]":
                    self.is_done = True
                    return
                yield read_chunk(payload)
