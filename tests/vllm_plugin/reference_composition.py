"""What plain transformers makes of a composed model: `[text, projector(slide), text]` through its language model, fp32.

Run by the Python of the vLLM environment; JSON on stdin, JSON on stdout. It shares no code with the plugin or with the
chat templates: the prompt comes written out, with the placeholder where the slide's rows belong.

in:  {"folder": llm folder, "cases": [{"slide": base64 .npy, "before": "..", "after": "..", "token_ids": [..]}]}
out: [{"prompt_tokens": n, "greedy": [..], "logprobs": [..], "closest": x}]

or, for a case with "options" of transformers' generate() and no "token_ids": {"prompt_tokens": n, "token_ids": [..]}

`greedy` are the tokens that it would have chosen at each place of `token_ids`, `logprobs` what it gives those;
`closest` is the least difference between its first and second choice.
"""

import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config

CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config}


class Reference:
    """Language model and projector, loaded strictly."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        weights = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
        self.projector = {name: weights.pop(name).float() for name in sorted(weights) if "mm_projector" in name}
        text = self.config["text_config"]
        self.model = AutoModelForCausalLM.from_config(CONFIGS[text["model_type"]](**text)).float().eval()
        self.model.load_state_dict(weights, strict=True)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def score(self, slide: np.ndarray, before: str, after: str, token_ids: list[int]) -> dict:
        """See the module."""
        rows = self.project(torch.from_numpy(slide).float())
        prompt = torch.cat([self.embed(before), rows, self.embed(after)])
        answer = self.model.get_input_embeddings()(torch.tensor(token_ids))
        logits = self.model(inputs_embeds=torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1]
        said, best = logits.log_softmax(-1), logits.topk(2).values
        return {
            "prompt_tokens": len(prompt),
            "greedy": said.argmax(-1).tolist(),
            "logprobs": said[torch.arange(len(token_ids)), token_ids].tolist(),
            "closest": (best[:, 0] - best[:, 1]).min().item(),
        }

    @torch.inference_mode()
    def generate(self, slide: np.ndarray, before: str, after: str, options: dict) -> dict:
        """Greedy tokens after the prompt, by transformers' own loop, which has no ids of the prompt."""
        rows = self.project(torch.from_numpy(slide).float())
        prompt = torch.cat([self.embed(before), rows, self.embed(after)])[None]
        mask = torch.ones(prompt.shape[:2], dtype=torch.long)
        ends = {"eos_token_id": self.tokenizer.eos_token_id, "pad_token_id": self.tokenizer.pad_token_id}
        said = self.model.generate(inputs_embeds=prompt, attention_mask=mask, do_sample=False, **ends, **options)
        return {"prompt_tokens": prompt.shape[1], "token_ids": said[0].tolist()}

    def embed(self, text: str) -> torch.Tensor:
        """Rows of the embedding table for a piece of the prompt."""
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return self.model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long))

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        """Zero columns on the right, then linear, exact GELU, linear; without a projector the rows as they are."""
        if not self.projector:
            return rows
        padded = torch.zeros(len(rows), self.config["mm_hidden_size"])
        padded[:, : rows.shape[1]] = rows
        return self.linear(2, torch.nn.functional.gelu(self.linear(0, padded)))

    def linear(self, number: int, rows: torch.Tensor) -> torch.Tensor:
        """One of the projector's two layers, by its number in the checkpoint."""
        prefix = f"model.mm_projector.{number}"
        return torch.nn.functional.linear(rows, self.projector[f"{prefix}.weight"], self.projector[f"{prefix}.bias"])


def main() -> None:
    """Reads the request from stdin and writes the answers to stdout."""
    request = json.load(sys.stdin)
    reference = Reference(Path(request["folder"]))
    cases = [{**case, "slide": np.load(io.BytesIO(base64.b64decode(case["slide"])))} for case in request["cases"]]
    answers = [reference.generate(**case) if "options" in case else reference.score(**case) for case in cases]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
