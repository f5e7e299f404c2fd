import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from encoders.tiling.shared_work import SharedWork, finish


def test_work_is_done_once_however_many_threads_come() -> None:
    done: list[int] = []
    works = [SharedWork(partial(done.append, index)) for index in range(200)]
    with ThreadPoolExecutor(4) as pool:
        for work in works * 2:
            pool.submit(work.do)
        finish(works)

    assert sorted(done) == list(range(200))


def test_what_no_thread_has_begun_the_caller_does_itself() -> None:
    threads: list[int] = []
    finish([SharedWork(lambda: threads.append(threading.get_ident()))])
    assert threads == [threading.get_ident()]


def test_work_that_another_thread_has_begun_is_waited_for() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def function() -> None:
        begun.set()
        assert go_on.wait(10)
        ended.set()

    work = SharedWork(function)
    helper = threading.Thread(target=work.do)
    helper.start()
    assert begun.wait(10)
    threading.Timer(0.05, go_on.set).start()

    finish([work])

    assert ended.is_set()
    helper.join()


def test_the_first_error_is_raised_when_all_work_has_ended() -> None:
    done: list[str] = []

    def fail(word: str) -> None:
        raise ValueError(word)

    works = [
        SharedWork(lambda: fail("first")),
        SharedWork(lambda: fail("second")),
        SharedWork(lambda: done.append("x")),
    ]
    with pytest.raises(ValueError, match="first"):
        finish(works)
    assert done == ["x"]


def test_an_error_in_a_helper_is_the_callers() -> None:
    def fail() -> None:
        raise ValueError("in the helper")

    work = SharedWork(fail)
    helper = threading.Thread(target=work.do)
    helper.start()
    helper.join()

    with pytest.raises(ValueError, match="in the helper"):
        finish([work])
