import time

import pytest

from encoders.tile_encoder.busy_time import BusyTime


def test_every_second_is_busy_or_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    spent = BusyTime()

    now[0] = 103.0
    assert (spent.busy_s, spent.idle_s) == (0, 3)
    spent.switch(True)
    now[0] = 104.0
    assert (spent.busy_s, spent.idle_s) == (1, 3)
    spent.switch(True)
    now[0] = 106.0
    spent.switch(False)
    now[0] = 106.5
    assert (spent.busy_s, spent.idle_s) == (3, 3.5)
