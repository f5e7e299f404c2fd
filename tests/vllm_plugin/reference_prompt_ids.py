"""The prompt ids of the reference: LLaVA's split at the placeholder over transformers 4.37's slow LlamaTokenizer.

Run by the Python of the vLLM environment; JSON on stdin, JSON on stdout. Nothing of transformers is used: the slow
tokenizer's two modes are written out over SentencePiece, as is the prompt of LLaVA's conversation.py.

in:  {"pieces": tokenizer.model, "legacy": bool, "human": "human" or "user", "conversations": [[question, answer, ..]]}
out: [[ids, with -200 for the slide], one per conversation]
"""

import json
import re
import sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

SYSTEM = (
    "A chat between a curious {0} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {0}'s questions."
)
BOS, SLIDE = 1, -200
SPECIAL = re.compile("(<s>|</s>|<unk>)")
UNKNOWN, MARK = "<unk>", "\N{LOWER ONE EIGHTH BLOCK}"


class SlowLlamaTokenizer:
    """Legacy mode puts a mark before every stretch between special tokens, the other before a text alone."""

    def __init__(self, path: str, legacy: bool) -> None:
        model = sentencepiece_model_pb2.ModelProto()
        with open(path, "rb") as file:
            model.ParseFromString(file.read())
        model.normalizer_spec.add_dummy_prefix = legacy
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
        self.legacy = legacy
        self.unknown_length = len(self.pieces.encode(UNKNOWN, out_type=str))

    def __call__(self, text: str) -> list[int]:
        """Ids of a text, with BOS."""
        if not self.legacy and text:
            text = MARK + text.replace(MARK, " ")
        stretches = [stretch for stretch in SPECIAL.split(text) if stretch]
        tokens = [token for stretch in stretches for token in self.tokens(stretch)]
        if not self.legacy and len(tokens) > 1 and tokens[0] == MARK and SPECIAL.fullmatch(tokens[1]):
            tokens = tokens[1:]
        return [BOS, *(self.pieces.piece_to_id(token) for token in tokens)]

    def tokens(self, stretch: str) -> list[str]:
        """Pieces of a stretch; without legacy a leading space survives behind the unknown token only."""
        if SPECIAL.fullmatch(stretch):
            return [stretch]
        if self.legacy or not stretch.startswith((MARK, " ")):
            return list(self.pieces.encode(stretch, out_type=str))
        return list(self.pieces.encode(UNKNOWN + stretch, out_type=str)[self.unknown_length :])


def prompt_of(texts: list[str], human: str) -> str:
    """Questions and answers in turn, the last a question."""
    prompt = f"{SYSTEM.format(human)} "
    for number, text in enumerate(texts):
        if number % 2:
            prompt += f"ASSISTANT: {text}</s>"
        else:
            prompt += f"USER: {'' if number else '<image>' + chr(10)}{text} "
    return f"{prompt}ASSISTANT:"


def prompt_ids(prompt: str, tokenizer: SlowLlamaTokenizer) -> list[int]:
    """Every chunk on its own, BOS once, the sentinel between them."""
    first, *others = (tokenizer(chunk)[1:] for chunk in prompt.split("<image>"))
    return [BOS, *first, *(token for chunk in others for token in (SLIDE, *chunk))]


def main() -> None:
    """Reads the request from stdin and writes the ids to stdout."""
    request = json.load(sys.stdin)
    tokenizer = SlowLlamaTokenizer(request["pieces"], request["legacy"])
    json.dump([prompt_ids(prompt_of(it, request["human"]), tokenizer) for it in request["conversations"]], sys.stdout)


if __name__ == "__main__":
    main()
