"""Weights and inputs of the vectors in encoders/hierarchical/golden, by name and seed: numpy's RandomState is frozen.

`part` is a stage's name, `name` a published tensor name. Holds no published code and no published number.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def weight(part: str, name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.generic]:
    """One published tensor, float32 (int64 for num_batches_tracked)."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    state = np.random.RandomState((zlib.crc32(f"{part}:{name}".encode()) + 7919 * seed) & 0x7FFFFFFF)
    r = state.standard_normal(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        r = 1 + 0.1 * np.abs(r)
    elif last in ("running_mean", "bias", "in_proj_bias"):
        r = 0.1 * r
    elif last in ("pos_embed", "cls_token", "query", "queries"):
        r = 0.5 * r
    elif len(shape) < 2:  # scales of norms, layer scales
        r = 1 + 0.1 * r
    else:
        r = r / np.sqrt(np.prod(shape[1:]))
        if last in ("in_proj_weight", "q_proj_weight", "k_proj_weight") or ".qkv." in name:
            rows = len(r) if last in ("q_proj_weight", "k_proj_weight") else 2 * len(r) // 3
            r[:rows] *= 1.5  # queries and keys: attention that is far from uniform
    return r.astype(np.float32)


def rows(seed: int, *shape: int) -> Float:
    """Standard normal features."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def unit_rows(seed: int, *shape: int, spread: float = 0.35) -> Float:
    """Like CONCH's features: unit rows around a common direction, so that cosines lie near 1 / (1 + spread²)."""
    state = np.random.RandomState(seed)
    x = state.standard_normal(shape[-1]) + spread * state.standard_normal(shape) * (
        0.5 + state.random_sample((*shape[:-1], 1))
    )
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def sign_rows(seed: int, count: int, width: int = 512, of: int = 24) -> Float:
    """Rows whose cosines are exact in float32 whatever the order of summation, with many ties and repeated rows.

    256 of 512 entries are ±1, the norm is exactly 16; only `of` different rows occur.
    """
    state = np.random.RandomState(seed)
    kinds = np.zeros((of, width), np.float32)
    for row in kinds:
        row[state.choice(width, 256, replace=False)] = state.choice([-1.0, 1.0], 256)
    return kinds[state.randint(0, of, count)]


# ------------------------------------------------------------------------------------------------ pictures

# A nucleus: centre x, y, semi-axes a, b, kind 1 or 2.
Nucleus = tuple[float, float, float, float, int]


def nuclei(
    seed: int, count: int, side: int, *, low: float = 4.0, high: float = 11.0, gap: float = 0.9
) -> list[Nucleus]:
    """Ellipses that may touch (gap < 1) or keep apart (gap > 1); centres may lie at the border."""
    state = np.random.RandomState(seed)
    placed: list[Nucleus] = []
    for _ in range(40 * count):
        if len(placed) == count:
            break
        x, y = state.uniform(0, side, 2)
        a, b = state.uniform(low, high, 2)
        kind = int(state.randint(1, 3))
        if all((x - p[0]) ** 2 + (y - p[1]) ** 2 > (gap * (max(a, b) + max(p[2], p[3]))) ** 2 for p in placed):
            placed.append((x, y, a, b, kind))
    return placed


def maps(side: int, cells: list[Nucleus]) -> tuple[NDArray[np.int64], Float]:
    """Kind per pixel (0 background) and the horizontal and vertical distance maps in [-1, 1]: [S, S], [S, S, 2]."""
    ys, xs = np.mgrid[0:side, 0:side]
    kind = np.zeros((side, side), np.int64)
    hv = np.zeros((side, side, 2), np.float32)
    best = np.full((side, side), np.inf)
    for x, y, a, b, k in cells:
        d = ((xs - x) / a) ** 2 + ((ys - y) / b) ** 2
        inside = (d <= 1) & (d < best)
        best[inside], kind[inside] = d[inside], k
        hv[inside, 0], hv[inside, 1] = ((xs - x) / a)[inside], ((ys - y) / b)[inside]
    return kind, hv


def tile(seed: int, side: int, cells: list[Nucleus], noise: int = 14, glass: float = 0.0) -> NDArray[np.uint8]:
    """A picture that the wired head can read: red and green hold the distance maps, blue the kind; textured ground.

    `glass` is the share of rows from the bottom that are pure white, as off tissue.
    """
    state = np.random.RandomState(seed)
    kind, hv = maps(side, cells)
    wave = np.add.outer(_saw(side, 11 + seed % 13), _saw(side, 9 + seed % 17))  # whole numbers: the same everywhere
    base = np.stack([128 + wave, 128 - wave, 40 + 4 * wave], -1).astype(float)
    base += state.randint(-noise, noise + 1, base.shape) * np.array([0.25, 0.25, 1.0])
    inside = kind > 0
    base[inside, 0] = 127.5 + 110 * hv[inside, 0]
    base[inside, 1] = 127.5 + 110 * hv[inside, 1]
    base[inside, 2] = np.where(kind[inside] == 1, 205, 245)
    picture = np.clip(np.rint(base), 0, 255).astype(np.uint8)
    if glass:
        picture[side - int(glass * side) :] = 255
    return picture


def region(seed: int, grid: int, cells: int = 14, px: int = 256) -> NDArray[np.uint8]:
    """grid x grid tiles of px: every seventh is white glass, every fifth has no nuclei, none looks like another."""
    rows_ = []
    for y in range(grid):
        row = []
        for x in range(grid):
            i = y * grid + x
            n = 0 if i % 5 == 3 else cells
            glass = 1.0 if i % 7 == 6 else (0.4 if i % 11 == 2 else 0.0)
            row.append(tile(1000 * seed + i, px, nuclei(1000 * seed + i, n, px), noise=6 + i % 19, glass=glass))
        rows_.append(np.concatenate(row, 1))
    return np.concatenate(rows_, 0)


def overview(seed: int, width: int, height: int, *, edge: bool = False) -> NDArray[np.uint8]:
    """A slide from far: tissue of overlapping ellipses with holes on grey glass; `edge` lets it leave the picture."""
    state = np.random.RandomState(seed)
    picture = 242 + state.randint(-3, 4, (height, width, 3))
    ys, xs = np.mgrid[0:height, 0:width]
    lo, hi = (-0.02, 1.02) if edge else (0.2, 0.8)
    for _ in range(state.randint(2, 9)):
        x, y = state.uniform(lo, hi) * width, state.uniform(lo, hi) * height
        a, b = state.uniform(0.06, 0.22) * width, state.uniform(0.06, 0.22) * height
        inside = np.zeros((height, width), bool)
        for _ in range(4):
            dx, dy, f = state.uniform(-0.8, 0.8), state.uniform(-0.8, 0.8), state.uniform(0.4, 1.0)
            inside |= ((xs - x - dx * a) / (f * a)) ** 2 + ((ys - y - dy * b) / (f * b)) ** 2 <= 1
        picture[inside] = np.array([190, 120, 170]) + state.randint(-15, 16, (int(inside.sum()), 3))
        for _ in range(state.randint(0, 5)):
            hx, hy = x + state.uniform(-0.6, 0.6) * a, y + state.uniform(-0.6, 0.6) * b
            r = state.uniform(0.02, 0.35) * min(a, b)
            picture[(xs - hx) ** 2 + (ys - hy) ** 2 <= r * r] = 243
    return np.clip(picture, 0, 255).astype(np.uint8)


def _saw(side: int, period: int) -> NDArray[np.int64]:
    """Triangle wave -3 … 3."""
    return np.abs((np.arange(side) * 12 // period) % 12 - 6) - 3


# A small language model: what transformers' Qwen2Config needs, the rest is its default.
TOY_QWEN2 = {
    "vocab_size": 288, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 4096, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}  # fmt: skip


def toy_language_model(seed: int) -> dict[str, Float]:
    """Qwen2's tensors by their published names; embeddings and head are scaled so that answers differ by question."""
    width, inner, key = 64, 160, 32
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (288, width), "lm_head.weight": (288, width)}
    for i in range(2):
        layer = f"model.layers.{i}"
        for name, out in (("q_proj", width), ("k_proj", key), ("v_proj", key)):
            shapes[f"{layer}.self_attn.{name}.weight"] = (out, width)
            shapes[f"{layer}.self_attn.{name}.bias"] = (out,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (width, width)
        shapes[f"{layer}.mlp.gate_proj.weight"] = shapes[f"{layer}.mlp.up_proj.weight"] = (inner, width)
        shapes[f"{layer}.mlp.down_proj.weight"] = (width, inner)
        shapes[f"{layer}.input_layernorm.weight"] = shapes[f"{layer}.post_attention_layernorm.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    state = {name: weight("llm", name, shape, seed) for name, shape in shapes.items()}
    state["model.embed_tokens.weight"] *= np.float32(8)
    state["lm_head.weight"] *= np.float32(3)
    return state  # type: ignore[return-value]
