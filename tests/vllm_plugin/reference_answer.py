"""What plain transformers answers: a LlamaForCausalLM fed `[text, projector(slide), text]` in fp32, greedily.

Run by the Python of the vLLM environment; for each line of JSON on stdin one on stdout. It shares no code with the
plugin: padding, projector, prompt and the split at the placeholder are written out again.

in:  {"folder": llm folder, "conversations": [{"slide": base64 .npy, "questions": [..], "max_tokens": n}]},
     each conversation with transformers' own generation options beside these
out: [[{"prompt_tokens": n, "token_ids": [..], "text": ".."}, one per question], one per conversation]

or, to judge answers that are there, "scored": [{"slide": base64 .npy, "question": "..", "token_ids": [..]}]
→ [[the log-probability of each token], one per answer]
"""

import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from reference_weights import plain_weights, round_inputs
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)


class Reference:
    """The language model, loaded strictly, and the projector's four tensors."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        stored = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
        quantization = self.config.get("quantization_config", {})
        weights = plain_weights(stored, quantization)
        self.projector = {name: weights.pop(name) for name in sorted(weights) if "mm_projector" in name}
        self.model = LlamaForCausalLM(LlamaConfig(**self.config["text_config"])).float().eval()
        self.model.load_state_dict(weights, strict=True)
        if quantization.get("quant_method") == "compressed-tensors":
            round_inputs(self.model)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def converse(self, slide: np.ndarray, questions: list[str], max_tokens: int, **options: int) -> list[dict]:
        """Asks in turn; every answer becomes part of the next prompt."""
        prompt = f"{SYSTEM} "
        turns = []
        for number, question in enumerate(questions):
            prompt += f"USER: {'' if number else '<image>' + chr(10)}{question} ASSISTANT:"
            turns.append(self.answer(prompt, slide, max_tokens, **options))
            prompt += f" {turns[-1]['text'].strip()}</s>"  # as LLaVA does: serve/cli.py strips its output
        return turns

    @torch.inference_mode()
    def score(self, slide: np.ndarray, question: str, token_ids: list[int]) -> list[float]:
        """The log-probability of each token of an answer, given those before it."""
        embeds = self.prompt_embeds(f"{SYSTEM} USER: <image>\n{question} ASSISTANT:", slide)
        answer = self.model.get_input_embeddings()(torch.tensor(token_ids))
        logits = self.model(inputs_embeds=torch.cat([embeds, answer])[None]).logits[0]
        said = logits[len(embeds) - 1 : -1].log_softmax(-1)
        return said[torch.arange(len(token_ids)), token_ids].tolist()

    def prompt_embeds(self, prompt: str, slide: np.ndarray) -> torch.Tensor:
        """Rows of a prompt whose one placeholder gives way to the projected slide."""
        before, after = (self.embed(text) for text in prompt.split("<image>"))
        bos = self.model.get_input_embeddings()(torch.tensor([self.tokenizer.bos_token_id]))
        return torch.cat([bos, before, self.project(slide), after])

    @torch.inference_mode()
    def answer(self, prompt: str, slide: np.ndarray, max_tokens: int, **options: int) -> dict:
        """Greedy tokens after the prompt, whose one placeholder gives way to the projected slide."""
        embeds = self.prompt_embeds(prompt, slide)[None]
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        ids = self.model.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=max_tokens,
            pad_token_id=0,
            **options,
        )[0].tolist()
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return {"prompt_tokens": embeds.shape[1], "token_ids": ids, "text": text}

    def embed(self, text: str) -> torch.Tensor:
        """Rows of the embedding table for a piece of the prompt."""
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0]
        return self.model.get_input_embeddings()(ids)

    def project(self, slide: np.ndarray) -> torch.Tensor:
        """Zero columns on the right, then linear, exact GELU, linear."""
        width = self.config["mm_hidden_size"]
        padded = np.zeros((len(slide), width), np.float32)
        padded[:, : slide.shape[1]] = slide
        hidden = torch.nn.functional.gelu(self.linear(0, torch.from_numpy(padded)))
        return self.linear(2, hidden)

    def linear(self, number: int, rows: torch.Tensor) -> torch.Tensor:
        """One of the projector's two layers, by its number in the checkpoint."""
        prefix = f"model.mm_projector.{number}"
        return torch.nn.functional.linear(rows, self.projector[f"{prefix}.weight"], self.projector[f"{prefix}.bias"])


def main() -> None:
    """Reads requests from stdin and writes the answers to each to stdout."""
    for line in sys.stdin:
        request = json.loads(line)
        reference = Reference(Path(request["folder"]))
        answers = []
        for conversation in request.get("conversations", []):
            answers.append(reference.converse(_slide(conversation), **conversation))
        for answer in request.get("scored", []):
            answers.append(reference.score(_slide(answer), **answer))
        print(json.dumps(answers), flush=True)


def _slide(request: dict) -> np.ndarray:
    return np.load(io.BytesIO(base64.b64decode(request.pop("slide"))))


if __name__ == "__main__":
    main()
