"""The training loop: what it leaves, and that a killed run ends in the same bits as an undisturbed one."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from nvidia_machine import pretend_nvidia
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from training_tasks import STEPS, Interrupted, KilledAt, SumOfInputs, settings, tiny_model

from training.errors import CheckpointMismatch, SettingsChanged, TrainingDiverged, TrainingError
from training.loop.checkpoint import load_trained
from training.loop.run_stage import run_stage

TASKS = Path(__file__).parents[2] / "support" / "training_tasks.py"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As many as the process that is killed has: sums are of another order with others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_stage(tiny_model(), SumOfInputs(), settings(), folder)
    return folder


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    found = other.state_dict()
    return all(torch.equal(tensor, found[name]) for name, tensor in one.state_dict().items())


class FallsApart(SumOfInputs):
    """The loss is not a number from batch 7 on."""

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        made = super().batch(step, rank, ranks)
        return {**made, "sums": made["sums"] * (float("nan") if step >= 7 else 1)}


class NeverAsked(SumOfInputs):
    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        raise AssertionError("a finished stage takes no step")


def test_training_lowers_the_loss_and_leaves_only_its_results(undisturbed: Path) -> None:
    done = json.loads((undisturbed / "done.json").read_text())

    assert done["stage"] == "tiny"
    assert done["steps"] == STEPS
    assert done["final_loss"] < 5  # the variance of what is to be predicted
    assert done["device"] == "cpu" or torch.cuda.is_available()
    assert {path.name for path in undisturbed.iterdir()} == {
        "done.json",
        "logs",
        "settings.json",
        "weights.safetensors",
    }


def test_only_trained_parameters_and_buffers_are_kept(undisturbed: Path) -> None:
    kept = set(load_file(undisturbed / "weights.safetensors"))

    assert {"0.weight", "0.bias"}.isdisjoint(kept)
    assert {"1.running_mean", "3.weight", "4.bias"} <= kept


def test_a_killed_process_goes_on_to_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, TASKS, tmp_path, "8"], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]

    run_stage(tiny_model(), SumOfInputs(), settings(), tmp_path)

    assert weights(tmp_path) == weights(undisturbed)


@pytest.mark.parametrize("kills", [(3,), (5,), (6, 11), (11, 11)])
def test_an_interrupted_run_goes_on_to_the_same_bits(kills: tuple[int, ...], undisturbed: Path, tmp_path: Path) -> None:
    for step in kills:
        with pytest.raises(Interrupted):
            run_stage(tiny_model(), KilledAt(step), settings(), tmp_path)

    run_stage(tiny_model(), SumOfInputs(), settings(), tmp_path)

    assert weights(tmp_path) == weights(undisturbed)


def test_a_half_written_checkpoint_is_not_gone_on_from(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_stage(tiny_model(), KilledAt(7), settings(), tmp_path)
    (tmp_path / ".partial-checkpoint-10").mkdir()
    (tmp_path / ".partial-checkpoint-10" / "weights.safetensors").write_bytes(b"half")

    run_stage(tiny_model(), SumOfInputs(), settings(), tmp_path)

    assert weights(tmp_path) == weights(undisturbed)
    assert not list(tmp_path.glob(".partial-*"))


def test_batches_made_ahead_in_another_process_are_the_same(undisturbed: Path, tmp_path: Path) -> None:
    run_stage(tiny_model(), SumOfInputs(), settings(prefetch_workers=2), tmp_path)

    assert weights(tmp_path) == weights(undisturbed)


def test_dropout_differs_from_seed_to_seed(undisturbed: Path, tmp_path: Path) -> None:
    run_stage(tiny_model(), SumOfInputs(), settings(seed=1), tmp_path)

    assert weights(tmp_path) != weights(undisturbed)


def test_a_finished_stage_is_loaded_and_not_trained(undisturbed: Path) -> None:
    model, expected = tiny_model(), tiny_model()
    load_trained(expected, undisturbed)

    run_stage(model, NeverAsked(), settings(), undisturbed)

    assert states_equal(model, expected)
    assert not states_equal(model, tiny_model())


def test_the_model_is_left_with_the_weights_in_the_folder(tmp_path: Path) -> None:
    model, loaded = tiny_model(), tiny_model()

    run_stage(model, SumOfInputs(), settings(), tmp_path)

    load_trained(loaded, tmp_path)
    assert states_equal(model, loaded)
    assert model.forward.__func__ is nn.Sequential.forward  # type: ignore[attr-defined]


def test_other_settings_are_refused_with_the_folder_to_remove(undisturbed: Path) -> None:
    with pytest.raises(SettingsChanged, match="another learning_rate, steps: remove") as refused:
        run_stage(tiny_model(), SumOfInputs(), settings(steps=13, learning_rate=1e-3), undisturbed)

    assert str(undisturbed) in str(refused.value)


def test_another_pace_of_logs_and_checkpoints_is_no_change(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_stage(tiny_model(), KilledAt(8), settings(), tmp_path)

    run_stage(tiny_model(), SumOfInputs(), settings(log_every=1, checkpoint_every=2), tmp_path)

    assert weights(tmp_path) == weights(undisturbed)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_stage(tiny_model(), KilledAt(8), settings(), tmp_path)
    wider = nn.Sequential(*list(tiny_model())[:-1], nn.Linear(8, 2))

    with pytest.raises(CheckpointMismatch, match=r"2 tensors .* first 4\.bias"):
        run_stage(wider, SumOfInputs(), settings(), tmp_path)


def test_a_loss_that_is_not_a_number_ends_training_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="nan at step 10"):
        run_stage(tiny_model(), FallsApart(), settings(), tmp_path)

    kept = load_file(tmp_path / "checkpoint-5" / "weights.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_half_precision_trains_and_keeps_full_weights(tmp_path: Path) -> None:
    run_stage(tiny_model(), SumOfInputs(), settings(precision="bf16"), tmp_path)

    kept = load_file(tmp_path / "weights.safetensors")
    assert kept["4.weight"].dtype == torch.float32
    assert json.loads((tmp_path / "done.json").read_text())["final_loss"] < 5


def test_accumulated_batches_count_as_one_step(tmp_path: Path) -> None:
    class Halves(SumOfInputs):
        def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
            return super().batch(step // 2, step % 2, 2)

    whole, halves = nn.Linear(5, 1), nn.Linear(5, 1)
    halves.load_state_dict(whole.state_dict())
    run_stage(whole, SumOfInputs(), settings(), tmp_path / "whole")
    run_stage(halves, Halves(), settings(accumulate=2), tmp_path / "halves")

    torch.testing.assert_close(whole.weight, halves.weight)


def test_a_rate_factor_slows_the_parameters_it_names(tmp_path: Path) -> None:
    model, before = tiny_model(), tiny_model().state_dict()

    run_stage(model, SumOfInputs(), settings(rate_factors=(("4.", 0.0),)), tmp_path)

    assert torch.equal(model.state_dict()["4.weight"], before["4.weight"])
    assert not torch.equal(model.state_dict()["3.weight"], before["3.weight"])


def test_what_is_logged_is_in_tensorboard_once_even_after_a_kill(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_stage(tiny_model(), KilledAt(9), settings(), tmp_path)
    run_stage(tiny_model(), SumOfInputs(), settings(), tmp_path)

    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [4, 8, 12]
    assert {"largest_error", "gradient_norm", "rate", "steps_per_s"} <= set(events.Tags()["scalars"])


def test_without_a_terminal_lines_say_how_far_training_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_stage(tiny_model(), SumOfInputs(), settings(), tmp_path)

    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["tiny 4/12", "tiny 8/12", "tiny 12/12"]
    assert all("loss " in line and "rate " in line and "min left" in line for line in lines)


def test_training_beside_a_gpu_that_cannot_be_used_is_refused_unless_the_cpu_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_nvidia(monkeypatch, tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    stage = tmp_path / "stage"

    with pytest.raises(TrainingError, match="NVIDIA H100 cannot be used"):
        run_stage(tiny_model(), SumOfInputs(), settings(), stage)
    monkeypatch.setenv("EYEPIECE_DEVICE", "cpu")
    run_stage(tiny_model(), SumOfInputs(), settings(), stage)
