"""Shows the progress of training: a bar on a terminal, one line now and then elsewhere, TensorBoard in both."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from training.loop.settings import LoopSettings


class ProgressReport:
    """Reports the steps of one run; a process that is not the first makes it with `is_shown` false and no output."""

    def __init__(self, settings: LoopSettings, logs: Path, first_step: int, *, is_shown: bool) -> None:
        self._settings = settings
        self._console = Console(stderr=True, quiet=not is_shown)
        # What a killed run wrote beyond its last checkpoint is written again: TensorBoard drops the first version.
        self._writer = SummaryWriter(str(logs), purge_step=first_step + 1) if is_shown else None
        self._bar = _bar(self._console)
        self._task = self._bar.add_task(settings.stage, total=settings.steps, completed=first_step, last="")
        self._since = (first_step, time.monotonic())

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def advance(self, step: int) -> None:
        """Moves the bar: `step` steps are done."""
        self._bar.update(self._task, completed=step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the scalars of the steps since the last call, which `step` ends."""
        steps_per_s = self._steps_per_s(step)
        if self._writer is not None:
            for name, value in {**values, "steps_per_s": steps_per_s}.items():
                self._writer.add_scalar(name, value, step)
        self._bar.update(self._task, last=f"loss {values['loss']:.4f}")
        if not self._console.is_terminal:
            self._console.print(self._line(step, values, steps_per_s), soft_wrap=True, highlight=False)

    def _line(self, step: int, values: Mapping[str, float], steps_per_s: float) -> str:
        minutes_left = (self._settings.steps - step) / steps_per_s / 60
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        return (
            f"{self._settings.stage} {step}/{self._settings.steps}  {shown}  "
            f"{steps_per_s:.3g} steps/s  {minutes_left:.1f} min left"
        )

    def _steps_per_s(self, step: int) -> float:
        (last_step, last_time), now = self._since, time.monotonic()
        self._since = (step, now)
        return (step - last_step) / max(now - last_time, 1e-9)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
