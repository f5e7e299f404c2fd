"""Stage 1, slide-text alignment: slides and their reports are brought together, other pairs apart.

InfoNCE in both directions (CLIP, arXiv 2103.00020), where equal reports in a batch count as pairs too: two slides of
one description are not to be told apart. An auxiliary loss reads each attribute from the slide's mean token, so this
is not purely contrastive: in a pilot it made the tumour fraction readable (0.945 to 0.992). The text side and the
heads are left behind; the slide encoder stays as it is from here on.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from encoders.slide_encoder.encode import new_slide_encoder
from encoders.slide_encoder.outputs import keep_for, output_rows
from model_store.contracts.slide_stage import LongnetPool
from synthetic.questions.question import report
from synthetic.questions.topics import ATTRIBUTES
from synthetic.slide_truth import SlideTruth
from training.slide_encoder.slide_bank import BankedSlide
from training.slide_encoder.slide_views import opposed_views

SHARED_WIDTH = 128
_FIRST_SCALE = float(np.log(1 / 0.07))  # CLIP's
_MOST_SCALE = float(np.log(100.0))
_ATTRIBUTE_WEIGHT = 0.2
_PLACE_WEIGHT = 20.0


class SlideTextAligner(nn.Module):
    """The slide encoder, a bag-of-words text side, and both sides' way into one space."""

    def __init__(self, spec: LongnetPool, vocabulary: int) -> None:
        super().__init__()
        self.spec = spec
        self.slide_encoder = new_slide_encoder(spec)
        self.to_shared = nn.Linear(spec.embed_dim, SHARED_WIDTH)
        self.words = nn.EmbeddingBag(vocabulary, spec.embed_dim, mode="mean")
        self.text_to_shared = nn.Sequential(
            nn.Linear(spec.embed_dim, spec.embed_dim), nn.GELU(), nn.Linear(spec.embed_dim, SHARED_WIDTH)
        )
        self.scale = nn.Parameter(torch.tensor(_FIRST_SCALE))
        self.place = nn.Linear(spec.embed_dim, 2)
        self.attributes = nn.ModuleDict(
            {topic.attribute: nn.Linear(spec.embed_dim, len(topic.phrases)) for topic in ATTRIBUTES}
        )

    def slide_tokens(self, features: Tensor, coords: Tensor) -> Tensor:
        """Features [L, C] and grid coordinates [L, 2] of one slide → its tokens [slide_tokens, D]."""
        states = self.slide_encoder(features, coords, keep=keep_for(self.spec.output), tile_size=1)
        return output_rows(self.spec.output, states, self.slide_encoder.norm, self.spec.slide_tokens)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`similarities` [B, B] of slides (rows) and reports, each attribute's logits [B, values], and `places`

        [B, slide_tokens, 2]: where in the tissue's bounding box, 0 to 1 across and down, each token's tiles lie.
        """
        lengths: list[int] = batch["lengths"].tolist()
        slides = zip(torch.split(batch["features"], lengths), torch.split(batch["coords"], lengths), strict=True)
        tokens = torch.stack([self.slide_tokens(features, coords) for features, coords in slides])
        mean = tokens.mean(dim=1)
        slide = functional.normalize(self.to_shared(mean).float(), dim=1)
        text = self.text_to_shared(self.words(batch["words"], batch["starts"]))
        similarities = slide @ functional.normalize(text.float(), dim=1).T * self.scale.clamp(max=_MOST_SCALE).exp()
        attributes = {name: head(mean) for name, head in self.attributes.items()}
        return {"similarities": similarities, "places": self.place(tokens), **attributes}


class AlignmentTask:
    """Two views of each of some random slides, mirrored differently, with their reports.

    What two such views do not share is where things are: without them reports hardly ever differ in the place of the
    necrosis alone, and the slide encoder does not learn it (0.60 of training slides, no better than chance).
    """

    def __init__(
        self, slides: Sequence[BankedSlide], tokenizer: Tokenizer, slide_tokens: int, batch_slides: int, seed: int
    ) -> None:
        self._slides = slides
        self._tokenizer = tokenizer
        self._batch_slides = batch_slides
        self._slide_tokens = slide_tokens
        self._seed = seed

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        """Slides end to end in `features` and `coords`, reports in `words`; `report` numbers equal reports equally."""
        rng = np.random.default_rng([self._seed, step, rank])
        chosen = rng.choice(len(self._slides), self._batch_slides // ranks // 2, replace=False)
        views = [view for row in chosen for view in opposed_views(self._slides[row], rng)]
        reports = [report(view.truth) for view in views]
        words = [self._tokenizer.encode(text, add_special_tokens=False).ids for text in reports]
        return {
            "features": torch.from_numpy(np.concatenate([view.features for view in views])).float(),
            "coords": torch.from_numpy(np.concatenate([view.coords for view in views])),
            "places": torch.stack([_places(view, self._slide_tokens) for view in views]),
            "lengths": torch.tensor([len(view.coords) for view in views]),
            "words": torch.tensor([word for text in words for word in text]),
            "starts": torch.tensor([0, *np.cumsum([len(text) for text in words])[:-1]]),
            "report": torch.tensor([reports.index(text) for text in reports]),
            **attribute_labels([view.truth for view in views]),
        }

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The contrastive loss, the share of slides whose own report comes first, and the auxiliary loss."""
        out = model(batch)
        similarities, pairs = out["similarities"], batch["report"][:, None] == batch["report"][None]
        contrast = (_pair_loss(similarities, pairs) + _pair_loss(similarities.T, pairs)) / 2
        found = pairs.gather(1, similarities.argmax(dim=1, keepdim=True)).float().mean()
        losses = {name: functional.cross_entropy(out[name].float(), batch[name]) for name in _attribute_names()}
        places = functional.mse_loss(out["places"].float(), batch["places"])
        loss = contrast + _ATTRIBUTE_WEIGHT * torch.stack(list(losses.values())).sum() + _PLACE_WEIGHT * places
        return {"loss": loss, "contrast": contrast, "retrieved": found, "places": places, **losses}


def attribute_labels(truths: Sequence[SlideTruth]) -> dict[str, Tensor]:
    """Each attribute's value as its place among the topic's phrases: int64 [B]."""
    return {
        topic.attribute: torch.tensor([list(topic.phrases).index(topic.value(truth)) for truth in truths])
        for topic in ATTRIBUTES
    }


def _places(view: BankedSlide, slide_tokens: int) -> Tensor:
    """Mean place of each token's tiles in their bounding box: float32 [slide_tokens, 2]."""
    first = view.coords.min(axis=0)
    share = (view.coords - first) / np.maximum(1, view.coords.max(axis=0) - first)
    return functional.adaptive_avg_pool1d(torch.from_numpy(share).float().T[None], slide_tokens)[0].T


def _attribute_names() -> list[str]:
    return [topic.attribute for topic in ATTRIBUTES]


def _pair_loss(similarities: Tensor, pairs: Tensor) -> Tensor:
    """Cross-entropy against an even share for each of a row's pairs."""
    targets = pairs.float() / pairs.sum(dim=1, keepdim=True)
    return functional.cross_entropy(similarities, targets)
