"""A device's work over time, from torch's profiler: spans of kernels and copies, and what they are for."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from torch.autograd.profiler_util import FunctionEvent

Kind = Literal["matrix products", "attention", "copies to the device", "other copies", "everything else"]
# By the names of kernels: cuBLAS's, cuDNN's and CUTLASS's, Triton's templates, FlashAttention's. The first that fits.
# What inductor fuses is named after all that it takes part in, products and attention too, and is neither.
_KINDS: Final[tuple[tuple[Kind, str], ...]] = (
    ("everything else", r"^triton_(?!tem|mm)"),
    ("copies to the device", r"memcpy htod"),
    ("other copies", r"memcpy|memset"),
    ("attention", r"fmha|flash|attention|sdpa"),
    ("matrix products", r"gemm|nvjet|cutlass|xmma|triton_tem|_mm_|conv|implicit"),
)


@dataclass(frozen=True)
class Span:
    """One kernel or copy on the device, in µs of one clock."""

    name: str
    start: float
    end: float

    @property
    def kind(self) -> Kind:
        """What it is for, by its name."""
        lower = self.name.lower()
        return next((kind for kind, pattern in _KINDS if re.search(pattern, lower)), "everything else")


def device_spans(events: Iterable[FunctionEvent]) -> list[Span]:
    """All that ran on CUDA devices; regions that somebody named are none, though they have a time there.

    Raises RuntimeError where the profiler saw nothing of the device.
    """
    spans = [
        Span(event.name, event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation and not _is_wait(event.name)
    ]
    if not any(_is_kernel(span) for span in spans):
        raise RuntimeError("torch's profiler saw no kernel of the device (CUPTI): what overlaps is not known")
    return spans


def _is_wait(name: str) -> bool:
    return re.search(r"\b(sync|wait event)\b", name.lower()) is not None


def _is_kernel(span: Span) -> bool:
    return span.kind not in ("copies to the device", "other copies")


def shares(spans: Iterable[Span]) -> dict[Kind, float]:
    """Each kind's share of the time between the first kernel's start and the last one's end; overlaps count twice."""
    all_spans = list(spans)
    kernels = [span for span in all_spans if _is_kernel(span)]
    whole = max(span.end for span in kernels) - min(span.start for span in kernels)
    found: dict[Kind, float] = {}
    for span in all_spans:
        found[span.kind] = found.get(span.kind, 0.0) + (span.end - span.start) / whole
    return found


def idle_share(spans: Iterable[Span]) -> float:
    """Of the time between the first kernel's start and the last one's end, the part in which no kernel ran."""
    kernels = sorted((span.start, span.end) for span in spans if _is_kernel(span))
    busy, reached = 0.0, kernels[0][0]
    for start, end in kernels:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return 1 - busy / (reached - kernels[0][0])


def overlapped_share(spans: Iterable[Span]) -> float:
    """Of the copies to the device, how many ran beside a kernel. The first has none to run beside."""
    all_spans = list(spans)
    kernels = [span for span in all_spans if _is_kernel(span)]
    copies = sorted((s for s in all_spans if s.kind == "copies to the device"), key=lambda s: s.start)[1:]
    beside = sum(any(k.start < c.end and c.start < k.end for k in kernels) for c in copies)
    return beside / len(copies)
