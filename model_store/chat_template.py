"""The chat template of the LLaVA v1 family, as `chat_template.jinja` in the folder that vLLM serves.

Two published templates differ in one sentence: `vicuna_v1` is what training used, `llava_v1` what the published
evaluation used (LLaVA's conversation.py).
"""

from importlib import resources
from typing import Final

from model_store.files.chunk_prefix import ChunkPrefix
from model_store.manifest import PromptTemplate

SYSTEM_SENTENCES: Final[dict[PromptTemplate, str]] = {
    "llava_v1": "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "vicuna_v1": "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
}


def chat_template(name: PromptTemplate, prefix: ChunkPrefix) -> str:
    """The Jinja text: BOS, the system sentence, then turns; an answer ends with EOS and no space after it.

    `prefix` belongs to the tokenizer beside it (model_store.files.chunk_prefix).
    """
    text = (resources.files("model_store") / "chat_templates" / "llava_v1_family.jinja").read_text("utf-8")
    return text.replace("SYSTEM_SENTENCE", SYSTEM_SENTENCES[name]).replace("CHUNK_PREFIX", prefix)
