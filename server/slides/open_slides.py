"""Slides kept open: a warm reader process for each of a few, and whoever waits for a picture of it.

    request ── line of its slide ── place for a reader ── newest first ── JPEG, made in the reader process

To start a reader takes a second or two, a picture from a warm one milliseconds. A reader ends when nobody has asked for
`idle_s`, when its slide is deleted, or when somebody else needs its place. Pixels are never decoded in this process.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog

from encoders.errors import ReaderDied, SlideError
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.isolation.reader_protocol import PictureForm
from model_store.errors import EyepieceError
from server.errors import NotFound, Overloaded, SlideReaderLost
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import Metrics
from server.to_the_end import to_the_end
from server.uploads.slide_source import local_source

T = TypeVar("T")
log = structlog.get_logger(__name__)

# Two screens of tiles. Beyond it the oldest is refused: whoever looks at the slide has moved on.
MOST_WAITING = 128
# Slides of a tenant that nobody has opened yet; a page of thumbnails is asked for in turns of its own.
_MOST_SLIDES_WAITING = 16
# How long a reader that is never idle keeps its place while others wait for one: a few times what opening takes.
_TURN_S = 5.0
# A local copy that is a day old is taken for left over by a killed process.
_MOST_OPEN_S = 4 * 3600.0
# Without an answer in between; then what waits is told so, instead of starting one reader after another.
_MOST_DEATHS = 2
# So long a slide that could not be opened is not tried again.
_REFUSED_S = 30.0
_MOST_REFUSED = 256
_RETRY_AFTER_S = 2


@dataclass(eq=False)
class _Asked:
    ask: Callable[[ReaderProcess], Any]
    answer: "asyncio.Future[Any]"
    is_viewing: bool


class _Slide:
    """One tenant's slide: a line of those who wait for a picture, and its reader while it has a place."""

    def __init__(self, record: SlideRecord) -> None:
        self.record = record
        self.tenant = record.tenant
        self.line: deque[_Asked] = deque()
        self.called = asyncio.Event()
        self.reader: ReaderProcess | None = None
        self.opened_at: float | None = None
        self.viewed_at = 0.0
        self.is_busy = False
        self.is_leaving = False
        self.is_gone = False
        self.deaths = 0

    @property
    def is_idle(self) -> bool:
        """Open, and nobody waits for anything."""
        return self.opened_at is not None and not self.is_busy and not self.line

    @property
    def is_viewed(self) -> bool:
        """Somebody who looks at the slide waits."""
        return any(asked.is_viewing for asked in self.line)

    def newest(self) -> _Asked | None:
        """Taken out of the line; who has hung up meanwhile is passed over."""
        while self.line:
            asked = self.line.pop()
            if not asked.answer.done():
                return asked
        return None

    def refuse_all(self, error: EyepieceError) -> None:
        """Tell all who wait."""
        while self.line:
            _fail(self.line.popleft(), error)

    def leave(self) -> None:
        """End the reader after the answer that it is making."""
        self.is_leaving = True
        self.called.set()


class OpenSlides:
    """At most `most` readers, of all tenants together. Lives on the event loop; each reader is talked to in a thread.

    Places go to the tenant that has fewest, and none has all. One is made free by a reader that nobody uses, the
    longest unused one of a tenant that has more first, or, after a turn, by one that never rests.
    """

    def __init__(
        self,
        store: SlideStore,
        limits: ReaderLimits,
        most: int,
        idle_s: float,
        metrics: Metrics,
        *,
        start: Callable[..., ReaderProcess] = ReaderProcess,
        turn_s: float = _TURN_S,
    ) -> None:
        self._store = store
        self._limits = limits
        self._most = most
        # One place is always left for somebody else.
        self._per_tenant = max(1, most - 1)
        self._idle_s = idle_s
        self._metrics = metrics
        self._start = start
        self._turn_s = turn_s
        self._slides: dict[tuple[str, str], _Slide] = {}
        self._placed: dict[_Slide, asyncio.Task[None]] = {}
        self._refused: dict[tuple[str, str], tuple[float, SlideError]] = {}
        # As many as places: the thread that starts a reader must outlive it, and these end with the process.
        self._is_closed = False
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="view")
        metrics.slide_readers_open.set_function(lambda: sum(slide.opened_at is not None for slide in self._placed))
        metrics.view_pictures_waiting.set_function(lambda: sum(len(slide.line) for slide in self._slides.values()))

    async def tile(self, record: SlideRecord, level: int, column: int, row: int) -> bytes:
        """A DeepZoom tile as JPEG.

        Raises:
            NotFound: the slide has no such tile, or was deleted.
            Overloaded: too many wait for this slide, or the tenant for too many slides.
            SlideReaderLost: the reader crashed or overran its deadline.
            SlideError: the slide, or this part of it, cannot be read.
        """
        try:
            return await self._ask(record, lambda reader: reader.view_tile(level, column, row), is_viewing=True)
        except ValueError:
            raise no_such_tile() from None

    async def thumbnail(self, record: SlideRecord, max_px: int, form: PictureForm) -> bytes:
        """The whole slide, at most `max_px` wide and high; errors as of `tile`. It keeps no reader in its place."""
        return await self._ask(record, lambda reader: reader.thumbnail(max_px, form), is_viewing=False)

    async def size(self, record: SlideRecord) -> tuple[int, int]:
        """(width, height) of level 0; asks a reader only where the record does not say. Errors as of `tile`."""
        if record.width is not None and record.height is not None:
            return record.width, record.height
        facts = await self._ask(record, lambda reader: reader.facts(), is_viewing=True)
        return facts.width, facts.height

    def is_open(self, record: SlideRecord) -> bool:
        """Whether a picture costs no start of a reader."""
        slide = self._slides.get((record.tenant, record.id))
        return slide is not None and slide.opened_at is not None and not slide.is_leaving

    def forget(self, tenant: str, slide_id: str) -> None:
        """The slide is deleted: its reader ends at once, and whoever waits is told."""
        self._refused.pop((tenant, slide_id), None)
        slide = self._slides.pop((tenant, slide_id), None)
        if slide is None:
            return
        slide.is_gone = True
        slide.refuse_all(_deleted())
        self._end(slide)

    async def aclose(self) -> None:
        """Ends all readers; none is started any more."""
        self._is_closed = True
        for slide in list(self._slides.values()):
            slide.refuse_all(_lost())
        serving = list(self._placed.items())
        for slide, task in serving:
            self._end(slide)
            if slide.reader is None:
                task.cancel()
        await asyncio.gather(*(task for _, task in serving), return_exceptions=True)
        self._slides.clear()
        self._threads.shutdown(wait=False)

    async def _ask(self, record: SlideRecord, ask: Callable[[ReaderProcess], T], *, is_viewing: bool) -> T:
        if self._is_closed:
            raise _lost()
        slide = self._slide_of(record)
        asked = _Asked(ask, asyncio.get_running_loop().create_future(), is_viewing)
        if len(slide.line) >= MOST_WAITING:
            _fail(slide.line.popleft(), _too_many("pictures of this slide"))
        slide.line.append(asked)
        slide.called.set()
        self._give_places()
        try:
            answer: T = await asked.answer
            return answer
        finally:
            if asked in slide.line:  # its client has hung up
                slide.line.remove(asked)
            self._drop_unused(slide)

    def _slide_of(self, record: SlideRecord) -> _Slide:
        key = (record.tenant, record.id)
        slide = self._slides.get(key)
        if slide is not None:
            return slide
        refused_at, error = self._refused.get(key, (0.0, None))
        if error is not None and self._now() - refused_at < _REFUSED_S:
            raise error.with_traceback(None)
        waiting = sum(it.tenant == record.tenant and it not in self._placed for it in self._slides.values())
        if waiting >= _MOST_SLIDES_WAITING:
            raise _too_many("slides to be opened")
        return self._slides.setdefault(key, _Slide(record))

    def _drop_unused(self, slide: _Slide) -> None:
        key = (slide.tenant, slide.record.id)
        if not slide.line and slide not in self._placed and self._slides.get(key) is slide:
            del self._slides[key]

    def _give_places(self) -> None:
        """To whoever waits for one, as long as there are any; else ask those to leave whose places they can have."""
        waiting = [slide for slide in self._slides.values() if slide.line and slide not in self._placed]
        held = Counter(slide.tenant for slide in self._placed)
        to_leave = len(waiting) - sum(slide.is_leaving for slide in self._placed)
        for slide in sorted(waiting, key=lambda slide: (held[slide.tenant], not slide.is_viewed)):
            has_its_share = held[slide.tenant] >= self._per_tenant
            if len(self._placed) < self._most and not has_its_share:
                self._placed[slide] = asyncio.create_task(self._serve(slide))
                held[slide.tenant] += 1
                to_leave -= 1
            elif to_leave > 0 and (leaving := self._who_leaves(slide, held, has_its_share)) is not None:
                leaving.leave()
                to_leave -= 1

    def _who_leaves(self, waiting: _Slide, held: Counter[str], has_its_share: bool) -> _Slide | None:
        def has_more(slide: _Slide) -> bool:
            return slide.tenant == waiting.tenant or held[slide.tenant] > held[waiting.tenant]

        there = [
            slide
            for slide in self._placed
            if slide.opened_at is not None
            and not slide.is_leaving
            and (slide.tenant == waiting.tenant or not has_its_share)
        ]
        idle = [slide for slide in there if slide.is_idle]
        if idle:
            return min(idle, key=lambda slide: (not has_more(slide), slide.viewed_at))
        since = self._now() - self._turn_s
        done = [slide for slide in there if (slide.opened_at or 0) <= since and has_more(slide)]
        return min(done, key=lambda slide: slide.opened_at or 0, default=None)

    def _end(self, slide: _Slide) -> None:
        """At once, whatever the reader does."""
        slide.leave()
        if slide.reader is not None:
            slide.reader.kill()

    async def _serve(self, slide: _Slide) -> None:
        """The life of a reader, in its place."""
        record = slide.record
        try:
            async with local_source(self._store, record.paths, record.entry) as source:
                if slide.is_leaving:  # while the slide was on its way from the store
                    return
                slide.reader = self._start(source.path, self._limits, folder=source.folder)
                await self._opened(slide, slide.reader)
                try:
                    await self._answer(slide, slide.reader)
                finally:
                    reader, slide.reader, slide.opened_at = slide.reader, None, None
                    await self._in_thread(partial(reader.__exit__, None, None, None))
        except ReaderDied:
            slide.deaths += 1
            if slide.is_gone or slide.deaths >= _MOST_DEATHS:
                slide.refuse_all(_deleted() if slide.is_gone else _lost())
        except FileNotFoundError:
            slide.refuse_all(_deleted())
        except EyepieceError as error:
            slide.refuse_all(error)
        except Exception as error:
            log.error("slide_reader_failed", exc_info=error)
            slide.refuse_all(_lost())
        finally:
            slide.reader, slide.opened_at, slide.is_leaving = None, None, False
            del self._placed[slide]
            self._drop_unused(slide)
            self._give_places()

    async def _opened(self, slide: _Slide, reader: ReaderProcess) -> None:
        self._metrics.slide_readers_started.inc()
        try:
            await self._in_thread(reader.__enter__)
        except SlideError as error:
            while len(self._refused) >= _MOST_REFUSED:
                del self._refused[next(iter(self._refused))]
            self._refused[slide.tenant, slide.record.id] = (self._now(), error)
            raise
        slide.opened_at = self._now()

    async def _answer(self, slide: _Slide, reader: ReaderProcess) -> None:
        """Until the reader has to leave, or nobody has asked for a while."""
        opened_at = self._now()
        while not slide.is_leaving and self._now() - opened_at < _MOST_OPEN_S:
            asked = slide.newest()
            if asked is None:
                slide.called.clear()
                self._give_places()  # this reader can be had now
                try:
                    async with asyncio.timeout(self._idle_s):
                        await slide.called.wait()
                except TimeoutError:
                    if not slide.line:
                        return
                continue
            slide.is_busy = True
            try:
                await self._answer_one(slide, reader, asked)
            finally:
                slide.is_busy = False
            self._give_places()  # its turn may be over

    async def _answer_one(self, slide: _Slide, reader: ReaderProcess, asked: _Asked) -> None:
        if asked.is_viewing:
            slide.viewed_at = self._now()
        try:
            answer = await self._in_thread(lambda: asked.ask(reader))
        except ReaderDied:
            _fail(asked, _deleted() if slide.is_gone else _lost())
            raise
        except (EyepieceError, ValueError) as error:
            _fail(asked, error)
        except BaseException:
            _fail(asked, _lost())
            raise
        else:
            slide.deaths = 0
            if not asked.answer.done():
                asked.answer.set_result(answer)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Waits for the thread even when cancelled: a reader has one thread at a time."""
        return await to_the_end(asyncio.get_running_loop().run_in_executor(self._threads, work))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def no_such_tile() -> NotFound:
    """What is said of a tile beside the slide's grid."""
    return NotFound("The slide has no tile at this level, column and row; its tiles.dzi says how large it is.")


def _fail(asked: _Asked, error: BaseException) -> None:
    if not asked.answer.done():
        asked.answer.set_exception(error)


def _deleted() -> NotFound:
    return NotFound("The slide was deleted meanwhile.")


def _lost() -> SlideReaderLost:
    return SlideReaderLost(
        "The process that reads the slide ended unexpectedly or gave no answer in time; try again. If it stays so, "
        "upload an intact copy.",
        retry_after_s=_RETRY_AFTER_S,
    )


def _too_many(what: str) -> Overloaded:
    return Overloaded(f"Your tenant waits for too many {what}; try again shortly.", retry_after_s=_RETRY_AFTER_S)
