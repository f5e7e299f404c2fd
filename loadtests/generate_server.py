"""A worker of the usual research-demo kind: transformers' `generate`, one request at a time, all of its prompt.

Run by the Python of vLLM's environment, which has transformers. It shares no code with the rest and is given the same
weights, the same prompts and the same slide tokens. Answers are server-sent events, so that the same client can ask.

    python generate_server.py <port> <llm folder> <folder of <slide>.npy files>
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)


class Worker:
    """Projector and language model in fp32, behind a lock."""

    def __init__(self, llm_folder: Path, slides: Path) -> None:
        self._slides = slides
        self._turn = threading.Lock()
        config = json.loads((llm_folder / "config.json").read_text())
        weights = {name: tensor.float() for name, tensor in load_file(llm_folder / "model.safetensors").items()}
        self._projector = {name: weights.pop(name) for name in sorted(weights) if "mm_projector" in name}
        self._width = config["mm_hidden_size"]
        self._model = LlamaForCausalLM(LlamaConfig(**config["text_config"])).train(mode=False)
        self._model.load_state_dict(weights, strict=True)
        self._tokenizer = AutoTokenizer.from_pretrained(llm_folder)

    @torch.inference_mode()
    def answer(self, slide: str, texts: list[str], max_tokens: int) -> dict[str, Any]:
        """`texts`: earlier questions and answers in turn, then the question."""
        with self._turn:
            before, after = (self._embed(text) for text in _prompt(texts).split("<image>"))
            bos = self._model.get_input_embeddings()(torch.tensor([self._tokenizer.bos_token_id]))
            embeds = torch.cat([bos, before, self._project(np.load(self._slides / f"{slide}.npy")), after])[None]
            ids = self._model.generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
                do_sample=False,
                max_new_tokens=max_tokens,
                pad_token_id=0,
            )[0]
        usage = {"prompt_tokens": embeds.shape[1], "completion_tokens": len(ids)}
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True))
        return {"answer": text.strip(), "usage": usage}

    def _embed(self, text: str) -> torch.Tensor:
        ids = self._tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0]
        embedded: torch.Tensor = self._model.get_input_embeddings()(ids)
        return embedded

    def _project(self, slide: np.ndarray) -> torch.Tensor:
        """Zero columns on the right, then linear, exact GELU, linear."""
        padded = np.zeros((len(slide), self._width), np.float32)
        padded[:, : slide.shape[1]] = slide
        return self._linear(2, torch.nn.functional.gelu(self._linear(0, torch.from_numpy(padded))))

    def _linear(self, number: int, rows: torch.Tensor) -> torch.Tensor:
        prefix = f"model.mm_projector.{number}"
        return torch.nn.functional.linear(rows, self._projector[f"{prefix}.weight"], self._projector[f"{prefix}.bias"])


def _prompt(texts: list[str]) -> str:
    """LLaVA's `v1`; the placeholder stands before the first question."""
    prompt = f"{SYSTEM} "
    for number, text in enumerate(texts):
        if number % 2:
            prompt += f" {text}</s>"
        else:
            prompt += f"USER: {'' if number else '<image>' + chr(10)}{text} ASSISTANT:"
    return prompt


def serve(port: int, worker: Worker) -> None:
    """Until it is killed."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply("text/plain", b"")

        def do_POST(self) -> None:
            options = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            done = worker.answer(options["slide"], options["texts"], options["max_tokens"])
            token = json.dumps({"text": done["answer"]})
            self._reply(
                "text/event-stream",
                f"event: token\ndata: {token}\n\nevent: done\ndata: {json.dumps(done)}\n\n".encode(),
            )

        def _reply(self, content_type: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) if body else b"")
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Worker(Path(sys.argv[2]), Path(sys.argv[3])))
