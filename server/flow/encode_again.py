"""A stored slide is encoded again: at another resolution, from its pixels, sooner, or for another model."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.errors import InvalidRequest, NotFound
from server.flow.queue_encode import QueueEncode
from server.slides.catalogue import SlideCatalogue
from server.slides.public_slide import Slide
from server.slides.slide_record import Priority, SlideRecord, SlideTileBudget
from server.slides.usage import Usage


@dataclass(frozen=True)
class EncodeOptions:
    """How to encode; `encoder` is a model's name or its encoder id for the slide, None the default's. `mpp` in µm/px
    replaces what the file says, `from_pixels` lets go of attached features, `all_tiles` of a `tile_budget`."""

    encoder: str | None
    mpp: float | None
    priority: Priority
    from_pixels: bool
    tile_budget: SlideTileBudget | None = None
    all_tiles: bool = False

    @property
    def of_the_slide(self) -> bool:
        """Whether something is said that changes the slide for all models."""
        return self.mpp is not None or self.from_pixels or self.tile_budget is not None or self.all_tiles


@dataclass(frozen=True)
class EncodeAgain:
    """Encodes slides of all tenants again; `models` are the served ones, the default first."""

    slides: SlideCatalogue
    usage: Usage
    encodes: QueueEncode
    models: Sequence[str]

    async def encode(self, tenant: str, slide_id: str, options: EncodeOptions) -> Slide:
        """Queues it, unless that embedding is there already.

        Raises:
            NotFound, RecordUnreadable: there is no such slide, or its record is of no use.
            InvalidRequest: no served model, or the slide has nothing that the options could mean.
            QuotaExceeded: the tenant's encodings of today are used up.
        """
        record = self._seen_by_encoder(await self.slides.require(tenant, slide_id), options.encoder)
        _refuse_what_means_nothing(record, options)
        await self.usage.require_encoding(tenant)
        changed = await self.slides.update(record, lambda stored: self._changed(stored, options))
        if changed is None:
            raise NotFound("The slide was deleted meanwhile.")
        return await self.encodes.encode_again(record, changed)

    def _seen_by_encoder(self, record: SlideRecord, encoder: str | None) -> SlideRecord:
        if encoder is None:
            return record
        for name in self.models:
            seen = self.slides.seen_by(record, name)
            if encoder in (name, seen.encoder_id):
                return seen
        raise InvalidRequest(f"This server does not serve that `encoder`; it serves {', '.join(self.models)}.")

    def _changed(self, stored: SlideRecord, options: EncodeOptions) -> SlideRecord:
        begun = {"priority": options.priority, "error": None, "wanted": True}
        if stored.model:
            return stored.model_copy(update=begun)
        changed = self.slides.with_override(stored, stored.mpp_override if options.mpp is None else options.mpp)
        if options.from_pixels:
            changed = self.slides.with_features(changed, None)
        if options.tile_budget is not None or options.all_tiles:
            changed = self.slides.with_budget(changed, options.tile_budget)
        return changed.model_copy(update=begun)


def _refuse_what_means_nothing(record: SlideRecord, options: EncodeOptions) -> None:
    if not options.of_the_slide:
        return
    if record.model:
        raise InvalidRequest(
            "`mpp`, `source` and `tile_budget` change the slide for all models; send them without `encoder`."
        )
    if not record.has_pixels:
        raise InvalidRequest(
            "This slide was uploaded as features; it has no pixels that `mpp`, `source` or `tile_budget` could mean."
        )
    if record.features_sha256 is not None and not options.from_pixels:
        raise InvalidRequest(
            "This slide has features attached; `mpp` and `tile_budget` need `source: pixels` beside them."
        )
