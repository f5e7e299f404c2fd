"""What a region costs by part, beside a plain composition of torch and Pillow that goes the way of the public code.

    python -m benchmarks.levels [--side 4] [--keep 4] [--rounds 2] [--json levels.json]
    python -m benchmarks.levels --memory

Networks are of the published sizes with drawn weights. The plain way is written from what MLLM-HWSI's public code does:
every picture is enlarged by Pillow on its own, white ones like any other; CONCH's captioning query is computed and
thrown away; the last blocks compute all tokens; CellViT's three branches each compute the skips; patches are projected
one by one and averaged behind the last layer. Where it calls a network, that network is this repository's modules with
the same weights, so the ratio is of the way, not of the kernels. `--memory` runs each way on a whole region of 256
pictures in a process of its own, cells of one of them, with networks of one block (four in CellViT): memory does not
grow with their depth.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.machine import machine, versions
from benchmarks.process_counters import peak_mb, reset_peak, resident_mb
from benchmarks.take_turns import Cost, Spread, take_turns
from encoders.hierarchical.cell_fusion import CellFusion
from encoders.hierarchical.cell_tokens import cell_tokens
from encoders.hierarchical.cellvit import CellMaps, CellVit256
from encoders.hierarchical.choose_patches import choose_patches
from encoders.hierarchical.conch import ConchImage
from encoders.hierarchical.encode import PICTURE_PX, HierarchicalEncoder
from encoders.hierarchical.find_cells import find_cells
from encoders.hierarchical.position_rows import position_rows
from encoders.hierarchical.projector import HierarchicalProjector
from encoders.hierarchical.vit4k import Vit4k
from encoders.hierarchical.vit256 import Vit256
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles

Pixels = NDArray[np.uint8]
# CONCH's captioning pool: so many queries, so wide.
_CAPTION_QUERIES: Final = 256
_CAPTION_DIM: Final = 768
# The public code's batches.
_CONCH_BATCH, _CELL_BATCH = 128, 16
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Parts:
    """The networks, drawn from one seed; `blocks` in place of the published depths."""

    def __init__(self, blocks: int | None = None) -> None:
        deep, region = blocks or 12, blocks or 6
        torch.manual_seed(0)
        self.vit256 = Vit256(depth=deep)
        self.vit4k = Vit4k(depth=region)
        self.conch = ConchImage(depth=deep)
        self.cellvit = CellVit256(depth=max(4, deep))
        self.cell_fusion = CellFusion(depth=deep)
        self.projector = HierarchicalProjector(llm_dim=3584)
        self.caption_queries = nn.Parameter(torch.randn(_CAPTION_QUERIES, _CAPTION_DIM))
        self.caption_pool = nn.MultiheadAttention(_CAPTION_DIM, 8, batch_first=True)
        for network in (*self.networks(), self.caption_pool):
            network.eval().requires_grad_(False)
            for name, parameter in network.named_parameters():
                if parameter.dim() > 1 or "bias" not in name:
                    parameter.data.copy_(torch.randn_like(parameter) * 0.02 + (1.0 if parameter.dim() == 1 else 0.0))

    def networks(self) -> tuple[Any, ...]:
        """In the encoder's order."""
        return (self.vit256, self.vit4k, self.conch, self.cellvit, self.cell_fusion, self.projector)


class PlainWay:
    """One region after the public code."""

    def __init__(self, parts: Parts, keep: int) -> None:
        self.parts, self.keep = parts, keep
        self.spent: dict[str, float] = {}

    @torch.inference_mode()
    def region(self, pixels: Pixels) -> Tensor:
        """[S, S, 3] → the region's fused row."""
        crops = self._timed("crops and Pillow", lambda: self._crops(pixels))
        pictures, for_vit, for_conch = crops
        vectors = self._timed("ViT-256", lambda: self._vit256(torch.stack(for_vit)))
        region = self._timed("ViT-4K", lambda: self._vit4k(vectors))
        patches = self._timed("CONCH", lambda: self._conch(for_conch))
        chosen = choose_patches(patches[None], keep=self.keep).chosen[0]
        cells = self._timed("CellViT and cells", lambda: self._cells([pictures[i] for i in chosen.tolist()]))
        fused: Tensor = self._timed("projector", lambda: self._fused(region, patches[chosen], cells))
        return fused

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        made = work()
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - started
        return made

    def _crops(self, pixels: Pixels) -> tuple[list[Pixels], list[Tensor], list[Tensor]]:
        image = Image.fromarray(pixels)
        grid = pixels.shape[0] // PICTURE_PX
        pictures, for_vit, for_conch = [], [], []
        for row in range(grid):
            for column in range(grid):
                left, top = column * PICTURE_PX, row * PICTURE_PX
                crop = image.crop((left, top, left + PICTURE_PX, top + PICTURE_PX))
                pictures.append(np.asarray(crop))
                for_vit.append(_normalised(crop, (0.5,) * 3, (0.5,) * 3))
                for_conch.append(_normalised(crop.resize((448, 448), Image.Resampling.BICUBIC), _MEAN, _STD))
        return pictures, for_vit, for_conch

    def _vit256(self, batch: Tensor) -> Tensor:
        net = self.parts.vit256
        x = net.patch_embed(batch)
        return _all_tokens(net, torch.cat([net.cls_token.expand(len(x), -1, -1), x], dim=1), (16, 16))

    def _vit4k(self, vectors: Tensor) -> Tensor:
        net, grid = self.parts.vit4k, round(len(vectors) ** 0.5)
        x = net.phi(vectors[None])
        return _all_tokens(net, torch.cat([net.cls_token, x], dim=1), (grid, grid))[0]

    def _conch(self, crops: list[Tensor]) -> Tensor:
        net, made = self.parts.conch, []
        for first in range(0, len(crops), _CONCH_BATCH):
            tokens = net.trunk.forward_features(torch.stack(crops[first : first + _CONCH_BATCH]))
            queries = self.parts.caption_queries.expand(len(tokens), -1, -1)
            self.parts.caption_pool(queries, tokens, tokens, need_weights=False)
            pooled = net.ln_contrast(net.attn_pool_contrast(tokens)) @ net.proj_contrast
            made.append(functional.normalize(pooled, dim=-1))
        return torch.cat(made)

    def _cells(self, pictures: list[Pixels]) -> Tensor:
        fused = []
        for first in range(0, len(pictures), _CELL_BATCH):
            maps = self._maps(torch.from_numpy(np.stack(pictures[first : first + _CELL_BATCH])))
            nuclei, kinds = (it.softmax(1).argmax(1).byte().numpy() for it in (maps.nucleus, maps.kind))
            distances = maps.distance.permute(0, 2, 3, 1).numpy()
            for nucleus, kind, distance, tokens in zip(nuclei, kinds, distances, maps.tokens, strict=True):
                found = find_cells(nucleus, kind, distance)
                fused.append(self.parts.cell_fusion([cell_tokens(tokens, found.instances, found.numbers)])[0])
        return torch.stack(fused)

    def _maps(self, batch: Tensor) -> CellMaps:
        """Each branch with skips of its own."""
        net = self.parts.cellvit
        picture = net._normalised(batch)
        levels = net._tokens(picture)

        def branch(decoder: Any) -> Tensor:
            skips = [net.decoder3(levels[2]), net.decoder2(levels[1]), net.decoder1(levels[0]), net.decoder0(picture)]
            made: Tensor = decoder(levels[3], skips)
            return made

        nucleus, distance = branch(net.nuclei_binary_map_decoder), branch(net.hv_map_decoder)
        return CellMaps(nucleus, distance, branch(net.nuclei_type_maps_decoder), levels[3])

    def _fused(self, region: Tensor, patches: Tensor, cells: Tensor) -> Tensor:
        net = self.parts.projector
        rows = [net.wsi_proj(region), net.region_proj(region), net.patch_proj(patches).mean(0)]
        fused: Tensor = net.fusion(torch.cat([*rows, net.cell_proj(cells).mean(0)])[None], rows[1][None])
        return fused[0]


class OurWay:
    """The same region by the worker's encoder, in one thread of find_cells as there."""

    def __init__(self, parts: Parts, keep: int) -> None:
        self.parts, self.keep = parts, keep
        self.encoder = HierarchicalEncoder(*parts.networks(), keep=keep)

    @torch.inference_mode()
    def region(self, pixels: Pixels) -> Tensor:
        """[S, S, 3] → the region's fused row."""
        made = self.encoder.encode_region(pixels, None)
        fused: Tensor = self.parts.projector.fuse(made.region, made.region[None], made.patch[None], made.cell[None])
        return fused[0]


def drawn_region(side: int) -> Pixels:
    """`side` x `side` pictures of drawn tissue, every fourth of them glass: white and equal."""
    pictures = tissue_like_tiles(side * side, PICTURE_PX)
    pictures[::4] = 243
    grid = pictures.reshape(side, side, PICTURE_PX, PICTURE_PX, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(side * PICTURE_PX, side * PICTURE_PX, 3))


def compare(side: int, keep: int, rounds: int) -> dict[str, Any]:
    """Interleaved CPU time of both ways, and of the plain way by part."""
    parts, pixels = Parts(), drawn_region(side)
    plain, ours = PlainWay(parts, keep), OurWay(parts, keep)
    difference = float((plain.region(pixels) - ours.region(pixels)).abs().max())
    plain.spent.clear()

    def cost(way: PlainWay | OurWay, _: int) -> Cost:
        cpu, wall = time.process_time(), time.perf_counter()
        way.region(pixels)
        return Cost(time.process_time() - cpu, time.perf_counter() - wall)

    turns = take_turns({"plain": partial(cost, plain), "ours": partial(cost, ours)}, rounds)
    ratio: Spread = turns.cpu_ratio("ours", "plain")
    total = sum(plain.spent.values())
    return {
        "pictures": side * side,
        "patches_with_cells": keep,
        "rounds": rounds,
        "largest_difference": difference,
        "times_faster": vars(ratio),
        "plain_cpu_s_a_region": total / rounds,
        "plain_share": {name: seconds / total for name, seconds in plain.spent.items()},
    }


def memory_mb(way: str) -> float:
    """What a whole region takes beside weights, in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.levels", "--memory-of", way], capture_output=True, text=True, check=True
    )
    return float(ran.stdout)


def _memory_here(way: str) -> float:
    parts, pixels = Parts(blocks=1), drawn_region(16)
    one = PlainWay(parts, 1) if way == "plain" else OurWay(parts, 1)
    before = resident_mb()
    reset_peak()
    one.region(pixels)
    return peak_mb() - before


def _all_tokens(net: Any, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    x = tokens + position_rows(net.pos_embed, grid)
    for block in net.blocks:
        x = block(x)
    made: Tensor = net.norm(x)[:, 0]
    return made


def _normalised(picture: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    scaled = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div_(255)
    return (scaled - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def main() -> None:
    """Prints what was measured, and writes it where --json says."""
    parser = argparse.ArgumentParser(description="Cost of a region, beside the way of the public code.")
    parser.add_argument("--side", type=int, default=4, help="pictures along a side of the region")
    parser.add_argument("--keep", type=int, default=1, help="pictures whose cells are looked for; 1 of 16 is published")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="memory of a whole region instead of time")
    parser.add_argument("--memory-of", choices=["plain", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.memory_of:
        print(_memory_here(options.memory_of))
        return
    found: dict[str, Any] = {"machine": machine(), "versions": versions(["torch", "timm", "pillow"])}
    if options.memory:
        found["memory_mb"] = {way: memory_mb(way) for way in ("plain", "ours")}
    else:
        found |= compare(options.side, options.keep, options.rounds)
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
