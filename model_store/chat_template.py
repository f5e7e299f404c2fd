"""The chat template of each kind of prompt, as `chat_template.jinja` in the folder that vLLM serves.

LLaVA v1's two published templates differ in one sentence: `vicuna_v1` is what training used, `llava_v1` what the
published evaluation used (LLaVA's conversation.py).
"""

import json
from importlib import resources
from typing import Final, assert_never

from model_store.contracts.prompt import ChatmlPrompt, LlavaPrompt, Place, PromptSpec, PromptTemplate
from model_store.files.chunk_prefix import ChunkPrefix

SYSTEM_SENTENCES: Final[dict[PromptTemplate, str]] = {
    "llava_v1": "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "vicuna_v1": "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
}


def chat_template(prompt: PromptSpec, prefix: ChunkPrefix) -> str:
    """The Jinja text of a kind of prompt; `prefix` belongs to the tokenizer (model_store.files.chunk_prefix)."""
    match prompt:
        case LlavaPrompt():
            return llava_template(prompt.template, prefix)
        case ChatmlPrompt(rows="front"):
            return qwen_slide_template(prompt.system)
        case ChatmlPrompt():
            return _chatml(prompt.system, "user")
        case _:
            assert_never(prompt)


def llava_template(name: PromptTemplate, prefix: ChunkPrefix) -> str:
    """BOS, the system sentence, then turns; an answer ends with EOS and no space after it."""
    text = _text("llava_v1_family.jinja")
    return text.replace("SYSTEM_SENTENCE", SYSTEM_SENTENCES[name]).replace("CHUNK_PREFIX", prefix)


def qwen_slide_template(system: str) -> str:
    """Qwen's turns behind a slide that stands in front of the whole text: one prefix for all questions about it."""
    return _chatml(system, "front")


def _chatml(system: str, place: Place) -> str:
    # As a Jinja string: what the system sentence says is never part of the template.
    return _text("chatml.jinja").replace("PLACE", place).replace('"SYSTEM_SENTENCE"', _jinja_string(system))


def _jinja_string(text: str) -> str:
    """JSON's escapes are Jinja's, and none of them leaves a delimiter in the text."""
    return json.dumps(text, ensure_ascii=True).replace("{", "\\u007b").replace("}", "\\u007d")


def _text(file: str) -> str:
    return (resources.files("model_store") / "chat_templates" / file).read_text("utf-8")
