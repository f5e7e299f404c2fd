"""The few patches of each region that go on: unlike each other, and in the order of their likeness to an anchor.

The rule of MLLM-HWSI's public code (`semantic_patch_filtering2`), and its quirks. Farthest points: first the patch that
is least like all others, then each time the one whose nearest among those that are chosen is farthest. Of these, the
`keep` that are most like the anchor, most alike first. Without a report the anchor is the first patch that was chosen
in the slide's *first* region, for all regions: the order of regions changes what is chosen in all of them. The order of
the result says likeness to an arbitrary patch, not importance.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class PatchChoice:
    """Indices into a region's N patches, for R regions."""

    dissimilar: Tensor
    """int64 [R, n], n = min(dissimilar, N), in the order of choosing."""
    chosen: Tensor
    """int64 [R, k], k = min(keep, n); falling cosine to the anchor."""
    anchor: Tensor
    """float32 [D]; give it to the next call for the same slide."""


def choose_patches(
    features: Tensor, *, anchor: Tensor | None = None, dissimilar: int = 32, keep: int = 16
) -> PatchChoice:
    """Features [R, N, D] of a slide's regions, in the published order of regions, to the choice.

    Without `anchor` the first of these regions is the slide's first. Of equal distances the lower index wins, of equal
    likenesses to the anchor the one that was chosen earlier (the public code leaves the latter to the device). Raises
    ValueError when there is nothing to choose from: no patches, or neither a region nor an anchor.
    """
    if features.dim() != 3 or not features.shape[1] or dissimilar < 1 or keep < 1:
        raise ValueError(
            f"Patches are chosen from features [R, N, D] with N of 1 or more, and 1 or more of them; not {keep} and "
            f"{dissimilar} of {list(features.shape)}."
        )
    features = features.float()
    if not len(features) and anchor is None:
        raise ValueError("Without a region there is no anchor to choose patches by; give the slide's.")
    unlike = [_farthest(region, min(dissimilar, len(region))) for region in features]
    anchor = features[0, unlike[0][0]] if anchor is None else anchor.float()
    alike = [_most_alike(region, among, anchor, keep) for region, among in zip(features, unlike, strict=True)]
    n = min(dissimilar, features.shape[1])
    return PatchChoice(
        dissimilar=_stacked(unlike, n, features), chosen=_stacked(alike, min(keep, n), features), anchor=anchor
    )


def _farthest(features: Tensor, count: int) -> Tensor:
    """[N, D] → int64 [count]. One matrix a region, as published: batched products round otherwise, and ties flip."""
    unit = functional.normalize(features, dim=-1)
    similarity = unit @ unit.T
    others = max(len(features) - 1, 1)
    chosen = [((similarity.sum(dim=1) - 1.0) / others).argmin()]
    nearest = similarity[chosen[0]].clone()
    nearest[chosen[0]] = torch.inf
    while len(chosen) < count:
        farthest = nearest.argmin()
        nearest = torch.maximum(nearest, similarity[farthest])
        nearest[farthest] = torch.inf
        chosen.append(farthest)
    return torch.stack(chosen)


def _most_alike(features: Tensor, among: Tensor, anchor: Tensor, keep: int) -> Tensor:
    """Of the patches `among` [n] the most alike, int64 [min(keep, n)]."""
    likeness = functional.normalize(features[among], dim=-1) @ functional.normalize(anchor[None], dim=-1).T
    return among[likeness[:, 0].sort(descending=True, stable=True).indices[:keep]]


def _stacked(rows: list[Tensor], width: int, like: Tensor) -> Tensor:
    return torch.stack(rows) if rows else torch.empty(0, width, dtype=torch.int64, device=like.device)
