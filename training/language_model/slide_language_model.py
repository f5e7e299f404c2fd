"""The language model as it is trained: LLaVA's projector in front of a Llama, and the scaffold while it is wanted."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from training.language_model.hugging_face import LlamaConfig, LlamaForCausalLM
from training.language_model.scaffold import Scaffold
from training.write_model import LlamaShape

MAX_POSITIONS = 2048


class SlideLanguageModel(nn.Module):
    """A Llama that reads slide tokens in the places of placeholders.

    The placeholder's id is `shape.vocabulary`, one beyond the embedding, as in the demo model's tokenizer.
    """

    def __init__(self, shape: LlamaShape, projector_width: int, *, scaffold: bool) -> None:
        super().__init__()
        self.projector_width = projector_width
        self.llama = LlamaForCausalLM(_config(shape))
        self.mm_projector = nn.Sequential(
            nn.Linear(projector_width, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.hidden)
        )
        self.scaffold = Scaffold(shape.hidden, shape.layers) if scaffold else None

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Token ids and targets as in `tokenized`, and `slide_tokens` [B, N, D] if there are placeholders.

        `answers`: the cross-entropy of the next token, weighted mean; the scaffold's losses by name. A batch of pairs
        has `said` bool [B, T] in place of targets, and gets `log_probabilities` float32 [B]: of the tokens that `said`
        marks, summed.
        """
        states = self.states(batch["ids"], batch.get("slide_tokens"))
        if "said" in batch:
            return {"log_probabilities": self._log_probabilities(states[-1], batch["ids"], batch["said"])}
        losses = {"answers": self._answers(states[-1], batch["ids"], batch["weights"])}
        return losses if self.scaffold is None else losses | self.scaffold(states, batch)

    def states(self, ids: Tensor, slide_tokens: Tensor | None) -> tuple[Tensor, ...]:
        """Embeddings and every layer's output [B, T, hidden]; the last one behind the final norm."""
        embedded = self._embedded(ids, slide_tokens)
        # Causal and padded on the right: no mask is needed where no target stands behind padding.
        output = self.llama.model(inputs_embeds=embedded, output_hidden_states=True, use_cache=False)
        return tuple(output.hidden_states)

    def logits(self, states: Tensor) -> Tensor:
        """[..., hidden] → [..., vocabulary]."""
        logits: Tensor = self.llama.lm_head(states)
        return logits

    def _embedded(self, ids: Tensor, slide_tokens: Tensor | None) -> Tensor:
        vocabulary = self.llama.config.vocab_size
        embedded: Tensor = self.llama.model.embed_tokens(ids.clamp(max=vocabulary - 1))
        if slide_tokens is None:
            return embedded
        padded = functional.pad(slide_tokens, (0, self.projector_width - slide_tokens.shape[-1]))
        projected = self.mm_projector(padded).to(embedded.dtype)
        return embedded.masked_scatter((ids == vocabulary)[..., None], projected)

    def _answers(self, states: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        wanted = weights[:, 1:] > 0
        # Of a conversation few tokens are asked for: logits of the others would cost more than a layer.
        logits = self.logits(states[:, :-1][wanted]).float()
        losses = functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
        return (losses * weights[:, 1:][wanted]).sum() / weights[:, 1:].sum()

    def _log_probabilities(self, states: Tensor, ids: Tensor, said: Tensor) -> Tensor:
        wanted = said[:, 1:]
        logits = self.logits(states[:, :-1][wanted]).float()
        losses = functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
        rows = wanted.nonzero()[:, 0]
        return losses.new_zeros(len(ids)).index_add(0, rows, -losses)


def _config(shape: LlamaShape) -> Any:
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=shape.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=False,
        # Twice the usual 0.02, which is small for so narrow a model.
        initializer_range=0.04,
    )


def train_only(model: SlideLanguageModel, *parts: str) -> None:
    """Only the named parts ("llama", "mm_projector", "scaffold") get gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in parts)
