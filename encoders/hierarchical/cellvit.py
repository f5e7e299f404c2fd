"""CellViT-256: a ViT-256 with a U-Net of three branches behind it, which says where nuclei lie and of what kind.

Written from the paper (Hörst et al., Medical Image Analysis 2024, doi 10.1016/j.media.2024.103143) and the behaviour of
its public code; tensors have the published names and shapes. The skips are shared by the three branches and computed
once here, three times there: the same numbers from a sixth less arithmetic (193 GFLOP a picture of 256 px, not 232).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.errors import EncoderOverflowed
from encoders.hierarchical.position_rows import position_rows
from encoders.tile_encoder.torchvision_ops import VisionTransformer

# Pixels of a token's side; pictures are whole numbers of them.
TOKEN_PX: Final = 16
# The grid of tokens that the position rows were learnt for is 14 x 14.
_LEARNT_PX: Final = 224


@dataclass(frozen=True)
class PixelClasses:
    """What the maps say of one picture, on the CPU: the arguments of `find_cells`."""

    nucleus: NDArray[np.uint8]
    """[H, W], 1 where a nucleus is."""
    kind: NDArray[np.uint8]
    """[H, W], 0 is background."""
    distance: NDArray[np.float32]
    """[H, W, 2], horizontal and vertical."""


@dataclass(frozen=True)
class CellMaps:
    """Of B pictures of H x W pixels: logits per pixel, and the tokens that cells are described by."""

    nucleus: Tensor
    """[B, 2, H, W]: background, nucleus."""
    distance: Tensor
    """[B, 2, H, W]: horizontal and vertical distance from the middle of the nucleus, about -1 … 1; no logits."""
    kind: Tensor
    """[B, cell_kinds, H, W]; 0 is background."""
    tokens: Tensor
    """[B, embed_dim, H/16, W/16]: the last block's output without the final norm."""

    def decide(self) -> list[PixelClasses]:
        """The likeliest class of every pixel, by picture; of equal ones the lower.

        Through a softmax in the logits' own dtype, as published: in float16 it makes near-ties equal, and those are
        background. Raises EncoderOverflowed where a map is not finite: its likeliest class would be background.
        """
        if not all(bool(one.isfinite().all()) for one in (self.nucleus, self.distance, self.kind)):
            raise EncoderOverflowed("The cell network gave numbers that are not finite; use float32 in its manifest.")
        nucleus, kind = (_likeliest(logits.softmax(dim=1)).cpu().numpy() for logits in (self.nucleus, self.kind))
        distance = self.distance.float().permute(0, 2, 3, 1).cpu().numpy()
        return [PixelClasses(*maps) for maps in zip(nucleus, kind, distance, strict=True)]


def _likeliest(shares: Tensor) -> Tensor:
    """[B, classes, H, W], finite → uint8 [B, H, W]: argmax, the first of equal ones. torch's own is ten times slower
    along an axis that is not the last one."""
    best, likeliest = shares[:, 0], torch.zeros_like(shares[:, 0], dtype=torch.uint8)
    for number in range(1, shares.shape[1]):
        is_likelier = shares[:, number] > best
        best = torch.where(is_likelier, shares[:, number], best)
        likeliest.masked_fill_(is_likelier, number)
    return likeliest


class CellVit256(nn.Module):
    """uint8 RGB [B, H, W, 3] → CellMaps; H and W are multiples of 16. Published: 256 px at level 0.

    `cell_kinds` includes background. `tissue_kinds` is the width of a head that published weights hold and that is not
    computed. `mean` and `std` of 0 … 1 are the checkpoint's. The rest are sizes of the published network: a ViT whose
    output is taken after each quarter of its blocks, and the channels of the U-Net from coarse to fine.
    """

    def __init__(  # noqa: PLR0913 - the sizes of a network
        self,
        *,
        cell_kinds: int = 6,
        tissue_kinds: int = 19,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        channels: tuple[int, int, int, int] = (312, 256, 128, 64),
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        if depth % 4:
            raise ValueError(f"A CellViT takes the output of each quarter of its blocks; {depth} cannot be parted so.")
        self.mean, self.std = tuple(mean), tuple(std)
        self.encoder: Any = VisionTransformer(
            img_size=_LEARNT_PX,
            patch_size=TOKEN_PX,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            num_classes=tissue_kinds,
        )
        coarsest, coarse, fine, finest = channels
        self.decoder0 = nn.Sequential(_conv(3, finest // 2), _conv(finest // 2, finest))
        self.decoder1 = nn.Sequential(_double(embed_dim, coarse), _double(coarse, fine), _double(fine, fine))
        self.decoder2 = nn.Sequential(_double(embed_dim, coarse), _double(coarse, coarse))
        self.decoder3 = nn.Sequential(_double(embed_dim, coarsest))
        self.nuclei_binary_map_decoder = _Branch(embed_dim, channels, 2)
        self.hv_map_decoder = _Branch(embed_dim, channels, 2)
        self.nuclei_type_maps_decoder = _Branch(embed_dim, channels, cell_kinds)

    def forward(self, pixels: Tensor) -> CellMaps:
        """See the class."""
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ValueError(f"CellViT takes uint8 [B, H, W, 3], not {pixels.dtype} {list(pixels.shape)}.")
        if pixels.shape[1] % TOKEN_PX or pixels.shape[2] % TOKEN_PX or not pixels.numel():
            raise ValueError(f"CellViT takes pictures of a multiple of {TOKEN_PX} px, not {list(pixels.shape[1:3])}.")
        picture = self._normalised(pixels)
        coarse_to_fine = self._tokens(picture)
        tokens = coarse_to_fine[3]
        skips = [
            self.decoder3(coarse_to_fine[2]),
            self.decoder2(coarse_to_fine[1]),
            self.decoder1(coarse_to_fine[0]),
            self.decoder0(picture),
        ]
        return CellMaps(
            nucleus=self.nuclei_binary_map_decoder(tokens, skips),
            distance=self.hv_map_decoder(tokens, skips),
            kind=self.nuclei_type_maps_decoder(tokens, skips),
            tokens=tokens,
        )

    def _normalised(self, pixels: Tensor) -> Tensor:
        """float32 arithmetic as in torchvision's ToTensor and Normalize, then the weights' dtype: [B, 3, H, W]."""
        mean, std = (
            torch.tensor(x, dtype=torch.float32, device=pixels.device).view(3, 1, 1) for x in (self.mean, self.std)
        )
        picture = pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
        return picture.to(self.encoder.pos_embed.dtype)

    def _tokens(self, picture: Tensor) -> list[Tensor]:
        """After each quarter of the blocks, without the class token and without norm: four [B, embed_dim, h, w]."""
        encoder = self.encoder
        embedded: Tensor = encoder.patch_embed.proj(picture)
        batch, _, height, width = embedded.shape
        x = torch.cat([encoder.cls_token.expand(batch, -1, -1), embedded.flatten(2).transpose(1, 2)], dim=1)
        x = x + position_rows(encoder.pos_embed, (height, width))
        quarter = len(encoder.blocks) // 4
        taken = []
        for index, block in enumerate(encoder.blocks, start=1):
            x = block(x)
            if index % quarter == 0:
                taken.append(x[:, 1:].transpose(1, 2).unflatten(2, (height, width)))
        return taken


class _Branch(nn.Module):
    """From the tokens up to the pixels; after each doubling but the last a skip is put in front of the channels."""

    def __init__(self, embed_dim: int, channels: tuple[int, int, int, int], out: int) -> None:
        super().__init__()
        coarsest, coarse, fine, finest = channels
        self.bottleneck_upsampler = _doubling(embed_dim, coarsest)
        self.decoder3_upsampler = nn.Sequential(
            _conv(2 * coarsest, coarsest),
            _conv(coarsest, coarsest),
            _conv(coarsest, coarsest),
            _doubling(coarsest, coarse),
        )
        self.decoder2_upsampler = nn.Sequential(
            _conv(2 * coarse, coarse), _conv(coarse, coarse), _doubling(coarse, fine)
        )
        self.decoder1_upsampler = nn.Sequential(_conv(2 * fine, fine), _conv(fine, fine), _doubling(fine, finest))
        self.decoder0_header = nn.Sequential(
            _conv(2 * finest, finest), _conv(finest, finest), nn.Conv2d(finest, out, 1)
        )

    def forward(self, tokens: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """[B, embed_dim, h, w] and skips of 2, 4, 8 and 16 times that side → [B, out, 16 h, 16 w]."""
        x: Tensor = self.bottleneck_upsampler(tokens)
        stages = (self.decoder3_upsampler, self.decoder2_upsampler, self.decoder1_upsampler, self.decoder0_header)
        for stage, skip in zip(stages, skips, strict=True):
            x = stage(torch.cat([skip, x], dim=1))
        return x


class _Block(nn.Module):
    """Layers under the published name `block`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Through all layers."""
        out: Tensor = self.block(x)
        return out


def _conv(channels: int, out: int) -> nn.Module:
    return _Block(nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def _double(channels: int, out: int) -> nn.Module:
    return _Block(
        _doubling(channels, out), nn.Conv2d(out, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


def _doubling(channels: int, out: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, out, kernel_size=2, stride=2)
