import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_tile_encoder import BATCH_TILES, CPU, SIDE_PX, small_encoder, small_weights, spec_of

from encoders.errors import DeviceLost
from encoders.tile_encoder.batcher import TileBatcher
from encoders.tile_encoder.compile_model import compile_model, keep_compiled_code_in
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


@pytest.fixture
def no_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set first, so that what the test sets is undone."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")


@needs_compiler
@pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="half a minute of g++; `make encoders`")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_encoder_gives_the_same_features_in_any_thread(tmp_path: Path, no_cache_folder: None) -> None:
    keep_compiled_code_in(tmp_path / "compiled")
    arguments = spec_of().timm_args | {"depth": 1}
    plain, encoder = (small_encoder(tmp_path, timm_args=arguments, compiles=compiles) for compiles in (False, True))
    tiles = tissue_like_tiles(BATCH_TILES + 1, SIDE_PX)

    encoder.warm_up()

    assert encoder.compiled
    assert not plain.compiled
    np.testing.assert_allclose(encoder.encode(tiles), plain.encode(tiles), atol=1e-5)
    assert len(list((tmp_path / "compiled").rglob("*.so"))) > 0, "kept where we said"
    assert _encode_elsewhere(encoder, tiles[:3]).shape == (3, 48)


def _encode_elsewhere(encoder: TileEncoder, tiles: np.ndarray) -> np.ndarray:
    """In a new thread, as the batcher does; anything that would be compiled anew fails."""
    results: list[np.ndarray] = []
    torch.compiler.set_stance("fail_on_recompile")
    try:
        thread = threading.Thread(target=lambda: results.append(encoder.encode(tiles)))
        thread.start()
        thread.join()
    finally:
        torch.compiler.set_stance("default")
    return results[0]


class EmptyCompiler:
    """Compiles to what it is given and counts how often; its code runs for at most `memory_tiles` tiles."""

    def __init__(self, memory_tiles: int = BATCH_TILES) -> None:
        self.compiled_tiles: list[int] = []
        self.memory_tiles = memory_tiles

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        (tiles,) = (len(each) for each in inputs if each.dtype == torch.uint8)
        self.compiled_tiles.append(tiles)

        def run(*arguments: object) -> object:
            if tiles > self.memory_tiles:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return graph.forward(*arguments)

        return run


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmptyCompiler]:
    compiler, compile_ = EmptyCompiler(), torch.compile

    def compile_by_it(model: torch.nn.Module, *, fullgraph: bool, dynamic: bool, mode: object) -> object:
        return compile_(model, fullgraph=fullgraph, dynamic=dynamic, backend=compiler)

    monkeypatch.setattr(torch, "compile", compile_by_it)
    torch.compiler.reset()
    yield compiler
    torch.compiler.reset()


def encoder_to_compile(folder: Path) -> TileEncoder:
    return small_encoder(folder, timm_args=spec_of().timm_args | {"depth": 1}, compiles=True)


def test_it_is_compiled_once_for_everything_that_is_encoded(tmp_path: Path, compiler: EmptyCompiler) -> None:
    tiles = tissue_like_tiles(BATCH_TILES + 3, SIDE_PX)
    encoder = encoder_to_compile(tmp_path)

    encoder.warm_up()
    # The batcher's buffers and thread, two slides, a batch that is not full; then the simple way.
    batcher = TileBatcher(encoder)
    for _ in range(2):
        with batcher.slide() as slide:
            slide.put(tiles)
            batched = np.concatenate(list(slide.finish()))
    batcher.close()
    encoder.encode(tiles[:1])

    assert encoder.compiled
    assert compiler.compiled_tiles == [BATCH_TILES]
    expected = small_encoder(tmp_path, timm_args=spec_of().timm_args | {"depth": 1}).encode(tiles)
    np.testing.assert_allclose(batched, expected, atol=1e-5)


def test_it_is_compiled_for_as_many_tiles_as_fit(tmp_path: Path, compiler: EmptyCompiler) -> None:
    compiler.memory_tiles = 3
    encoder = encoder_to_compile(tmp_path)

    encoder.warm_up()
    encoder.encode(tissue_like_tiles(BATCH_TILES + 1, SIDE_PX))

    assert encoder.compiled
    assert encoder.pass_tiles == 2
    assert compiler.compiled_tiles == [BATCH_TILES, BATCH_TILES // 2, 2]


def test_memory_that_runs_out_later_costs_the_compiled_code_and_compiles_nothing(
    tmp_path: Path, compiler: EmptyCompiler
) -> None:
    encoder = encoder_to_compile(tmp_path)
    encoder.warm_up()
    tiles = tissue_like_tiles(BATCH_TILES, SIDE_PX)
    expected = encoder.encode(tiles)
    compiler.memory_tiles = 3

    features = encoder.encode(tiles)

    assert not encoder.compiled
    assert encoder.pass_tiles == BATCH_TILES // 2, "what was compiled has another shape, so it is not asked"
    assert compiler.compiled_tiles == [BATCH_TILES]
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_a_device_that_fails_while_compiling_is_no_fault_of_the_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def lost(*_: object, **__: object) -> object:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: lost)

    with pytest.raises(DeviceLost):
        encoder_to_compile(tmp_path).warm_up()


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    encoder = small_encoder(tmp_path, compiles=True)

    with caplog.at_level(logging.WARNING):
        encoder.warm_up()

    assert not encoder.compiled
    assert "cannot be compiled" in caplog.text
    assert encoder.encode(tissue_like_tiles(2, SIDE_PX)).shape == (2, 48)


def test_the_mode_depends_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def compile_(model: torch.nn.Module, **options: object) -> torch.nn.Module:
        asked.append(options)
        return model

    monkeypatch.setattr(torch, "compile", compile_)

    assert compile_model(torch.nn.Identity(), torch.zeros(1)) is not None
    assert asked == [{"fullgraph": True, "dynamic": False, "mode": None}]


def test_nothing_is_compiled_on_the_cpu_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    spec = spec_of()
    encoder = TileEncoder(spec, small_weights(tmp_path, spec), CPU)

    encoder.warm_up()

    assert not encoder.compiled


def test_an_operators_own_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "theirs")

    keep_compiled_code_in(tmp_path / "ours")

    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "theirs"
    assert not (tmp_path / "ours").exists()


def test_the_folder_of_compiled_code_is_ours_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_cache_folder: None
) -> None:
    monkeypatch.chdir(tmp_path)

    keep_compiled_code_in(Path("code"))

    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "code"), "other processes have other folders"
    assert (tmp_path / "code").stat().st_mode & 0o777 == 0o700
