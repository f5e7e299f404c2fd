"""Dependencies that routes name by type: single parts, and the stories of `server.flow` made of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Request

from server.admission.refusals import RefusalPace
from server.admission.slots import TenantSlots
from server.api.drain import Drain
from server.api.parts import Parts
from server.asking.conversations import Conversations
from server.asking.served_models import ServedModels
from server.embeddings.cache import EmbeddingCache
from server.embeddings.tile_places import TilePlacesCache
from server.encoding.jobs import EncodeJobs
from server.flow.admit_upload import AdmitUpload
from server.flow.answer_question import AnswerQuestion
from server.flow.ask_case import AskCase
from server.flow.attach_features import AttachFeatures
from server.flow.change_metadata import ChangeMetadata
from server.flow.delete_slide import DeleteSlide, ForgetSlide
from server.flow.draw_region import DrawRegion
from server.flow.encode_again import EncodeAgain
from server.flow.erase_tenant import EraseTenant
from server.flow.expire_slides import ExpireSlides
from server.flow.find_instances import FindInstances
from server.flow.follow_import import FollowImport
from server.flow.follow_slide import FollowSlide
from server.flow.give_feedback import GiveFeedback
from server.flow.list_slides import ListSlides
from server.flow.prepare_slide import PrepareSlide
from server.flow.pull_series import PullSeries
from server.flow.queue_encode import QueueEncode
from server.flow.receive_series import ReceiveSeries
from server.flow.receive_upload import ReceiveUpload
from server.flow.show_evidence import EvidenceLimits, ShowEvidence
from server.flow.show_levels import ShowLevels
from server.flow.slide_states import SlideStates
from server.flow.write_report import WriteReport
from server.reports.report_record import ReportShelf
from server.slides.catalogue import SlideCatalogue
from server.slides.feedback import FeedbackShelf
from server.slides.open_slides import OpenSlides
from server.slides.thumbnails import Thumbnails
from server.slides.usage import Usage
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import Metrics
from server.upkeep.readiness import Readiness
from server.webhooks.webhooks import Webhooks
from web.files import PageFile


def parts_of(request: Request) -> Parts:
    """The parts of the application that serves this request."""
    parts: Parts = request.app.state.parts
    return parts


def refusals_of(request: Request) -> RefusalPace:
    """At what pace tenants are told that they want too much."""
    return parts_of(request).refusals


def slide_states(parts: Parts) -> SlideStates:
    """How slides stand."""
    return SlideStates(parts.embeddings, parts.jobs, parts.slides, parts.models.names)


def queue_encode(parts: Parts) -> QueueEncode:
    """The way into the encode queue."""
    return QueueEncode(
        parts.slides, parts.jobs, parts.progress, parts.usage, parts.store, slide_states(parts), parts.metrics
    )


def forget_slide(parts: Parts) -> ForgetSlide:
    """What drops a slide from memory and Redis."""
    others = parts.slides.other_models
    return ForgetSlide(
        parts.open_slides,
        parts.thumbnails,
        parts.embeddings,
        parts.conversations,
        parts.replies,
        parts.progress,
        others,
    )


def _admit_upload(parts: Parts) -> AdmitUpload:
    settings = parts.settings
    return AdmitUpload(parts.jobs, parts.usage, parts.store, settings.max_upload_bytes, settings.disk_reserve_bytes)


def _prepare_slide(parts: Parts) -> PrepareSlide:
    return PrepareSlide(
        admission=_admit_upload(parts),
        store=parts.store,
        slides=parts.slides,
        series=parts.series,
        instances=parts.instances,
        usage=parts.usage,
        inspector=parts.inspector,
        encodes=queue_encode(parts),
        states=slide_states(parts),
        metrics=parts.metrics,
    )


def receive_upload(parts: Parts) -> ReceiveUpload:
    """How slides come in pieces."""
    return ReceiveUpload(
        admission=_admit_upload(parts),
        shelf=parts.upload_shelf,
        locks=parts.upload_locks,
        hashes=parts.upload_hashes,
        open_uploads=parts.open_uploads,
        slides=_prepare_slide(parts),
        usage=parts.usage,
        lifetime_s=parts.settings.upload_lifetime_s,
        is_leaving=lambda: parts.drain.refusing,
    )


def receive_series(parts: Parts) -> ReceiveSeries:
    """How slides come as DICOM."""
    return ReceiveSeries(receive_upload(parts), parts.series, parts.series_clock, parts.settings.dicom_quiet_s)


def _find_instances(parts: Parts) -> FindInstances:
    return FindInstances(parts.store, parts.slides, parts.series, parts.instances, parts.usage, parts.inspector)


def pull_series(parts: Parts) -> PullSeries:
    """How series are pulled from archives."""
    patient = replace(receive_series(parts), quiet_s=2 * parts.settings.upload_lifetime_s)
    archives = {it.name: it for it in parts.settings.dicomweb_archives}
    return PullSeries(archives, parts.imports, parts.import_queue, parts.progress, patient, _find_instances(parts))


def _follow_import(parts: Parts) -> FollowImport:
    return FollowImport(parts.progress, parts.imports, lambda: parts.drain.begun)


def _attach_features(parts: Parts) -> AttachFeatures:
    return AttachFeatures(
        admission=_admit_upload(parts),
        store=parts.store,
        slides=parts.slides,
        usage=parts.usage,
        inspector=parts.inspector,
        manifest=parts.models.default.manifest,
        metrics=parts.metrics,
    )


def _delete_slide(parts: Parts) -> DeleteSlide:
    return DeleteSlide(
        parts.store,
        parts.slides,
        parts.series,
        parts.jobs,
        (parts.region_jobs, parts.evidence_jobs),
        parts.usage,
        parts.feedback,
        forget_slide(parts),
    )


def erase_tenant(parts: Parts) -> EraseTenant:
    """What erases all of a tenant."""
    return EraseTenant(parts.store, parts.redis, parts.slides, _delete_slide(parts))


def expire_slides(parts: Parts) -> ExpireSlides:
    """What ends the time that slides are kept for."""
    return ExpireSlides(parts.store, parts.slides, _delete_slide(parts))


def _follow_slide(parts: Parts) -> FollowSlide:
    return FollowSlide(parts.progress, parts.slides, slide_states(parts), lambda: parts.drain.begun)


def _encode_again(parts: Parts) -> EncodeAgain:
    return EncodeAgain(parts.slides, parts.usage, queue_encode(parts), parts.models.names)


def _list_slides(parts: Parts) -> ListSlides:
    return ListSlides(parts.slides, slide_states(parts), parts.store)


def _draw_region(parts: Parts) -> DrawRegion:
    return DrawRegion(
        slides=parts.slides,
        regions=parts.regions,
        jobs=parts.region_jobs,
        embeddings=parts.embeddings,
        places=parts.tile_places,
        encodes=queue_encode(parts),
        usage=parts.usage,
        models=parts.models,
        wait_s=parts.settings.region_wait_s,
    )


def _show_evidence(parts: Parts) -> ShowEvidence:
    settings = parts.settings
    return ShowEvidence(
        slides=parts.slides,
        conversations=parts.conversations,
        models=parts.models,
        encodes=queue_encode(parts),
        regions=parts.regions,
        places=parts.tile_places,
        store=parts.store,
        evidence=parts.evidence,
        jobs=parts.evidence_jobs,
        usage=parts.usage,
        limits=EvidenceLimits(settings.max_evidence_bytes, settings.evidence_requests_at_once),
    )


def _give_feedback(parts: Parts) -> GiveFeedback:
    return GiveFeedback(parts.slides, parts.conversations, parts.feedback, parts.usage)


def _answer_question(parts: Parts) -> AnswerQuestion:
    return AnswerQuestion(
        slides=parts.slides,
        encodes=queue_encode(parts),
        regions=_draw_region(parts),
        conversations=parts.conversations,
        models=parts.models,
        metrics=parts.metrics,
        max_question_chars=parts.settings.max_question_chars,
    )


def _ask_case(parts: Parts) -> AskCase:
    return AskCase(_list_slides(parts), _answer_question(parts))


def _write_report(parts: Parts) -> WriteReport:
    return WriteReport(parts.slides, _answer_question(parts), parts.reports, parts.usage, parts.outbox)


def _change_metadata(parts: Parts) -> ChangeMetadata:
    return ChangeMetadata(parts.slides, slide_states(parts))


def show_levels(parts: Parts) -> ShowLevels:
    """What models of levels were given."""
    return ShowLevels(parts.store, parts.embeddings, parts.models, parts.levels_turns)


@dataclass(frozen=True)
class Answering:
    """All that a question takes, as one dependency: FastAPI solves each with every request, and a first token waits."""

    story: AnswerQuestion
    slots: TenantSlots
    drain: Drain


def _answering(parts: Parts) -> Answering:
    return Answering(_answer_question(parts), parts.question_slots, parts.drain)


def _made_of(make: Callable[[Parts], Any]) -> Any:
    """A dependency that is made once for an application: nothing in it is of a request."""

    async def dependency(request: Request) -> Any:
        made: dict[Any, Any] = request.app.state.made
        if make not in made:
            made[make] = make(parts_of(request))
        return made[make]

    return Depends(dependency)


async def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


# Stories
PrepareSlideDep = Annotated[PrepareSlide, _made_of(_prepare_slide)]
ReceiveUploadDep = Annotated[ReceiveUpload, _made_of(receive_upload)]
ReceiveSeriesDep = Annotated[ReceiveSeries, _made_of(receive_series)]
PullSeriesDep = Annotated[PullSeries, _made_of(pull_series)]
FollowImportDep = Annotated[FollowImport, _made_of(_follow_import)]
FindInstancesDep = Annotated[FindInstances, _made_of(_find_instances)]
AttachFeaturesDep = Annotated[AttachFeatures, _made_of(_attach_features)]
DeleteSlideDep = Annotated[DeleteSlide, _made_of(_delete_slide)]
ListSlidesDep = Annotated[ListSlides, _made_of(_list_slides)]
FollowSlideDep = Annotated[FollowSlide, _made_of(_follow_slide)]
DrawRegionDep = Annotated[DrawRegion, _made_of(_draw_region)]
AnsweringDep = Annotated[Answering, _made_of(_answering)]
AskCaseDep = Annotated[AskCase, _made_of(_ask_case)]
ChangeMetadataDep = Annotated[ChangeMetadata, _made_of(_change_metadata)]
WriteReportDep = Annotated[WriteReport, _made_of(_write_report)]
ShowEvidenceDep = Annotated[ShowEvidence, _made_of(_show_evidence)]
GiveFeedbackDep = Annotated[GiveFeedback, _made_of(_give_feedback)]
EncodeAgainDep = Annotated[EncodeAgain, _made_of(_encode_again)]
ShowLevelsDep = Annotated[ShowLevels, _made_of(show_levels)]
QueueEncodeDep = Annotated[QueueEncode, _made_of(queue_encode)]
SlideStatesDep = Annotated[SlideStates, _made_of(slide_states)]

# Single parts
ModelsDep = Annotated[ServedModels, _made_of(lambda parts: parts.models)]
StoreDep = Annotated[SlideStore, _made_of(lambda parts: parts.store)]
CatalogueDep = Annotated[SlideCatalogue, _made_of(lambda parts: parts.slides)]
EmbeddingsDep = Annotated[EmbeddingCache, _made_of(lambda parts: parts.embeddings)]
TilePlacesDep = Annotated[TilePlacesCache, _made_of(lambda parts: parts.tile_places)]
OpenSlidesDep = Annotated[OpenSlides, _made_of(lambda parts: parts.open_slides)]
ThumbnailsDep = Annotated[Thumbnails, _made_of(lambda parts: parts.thumbnails)]
ConversationsDep = Annotated[Conversations, _made_of(lambda parts: parts.conversations)]
ReportsDep = Annotated[ReportShelf, _made_of(lambda parts: parts.reports)]
FeedbackDep = Annotated[FeedbackShelf, _made_of(lambda parts: parts.feedback)]
WebhooksDep = Annotated[Webhooks, _made_of(lambda parts: parts.webhooks)]
UsageDep = Annotated[Usage, _made_of(lambda parts: parts.usage)]
JobsDep = Annotated[EncodeJobs, _made_of(lambda parts: parts.jobs)]
MetricsDep = Annotated[Metrics, _made_of(lambda parts: parts.metrics)]
DrainDep = Annotated[Drain, _made_of(lambda parts: parts.drain)]
UploadSlotsDep = Annotated[TenantSlots, _made_of(lambda parts: parts.upload_slots)]
QuestionSlotsDep = Annotated[TenantSlots, _made_of(lambda parts: parts.question_slots)]
FollowerSlotsDep = Annotated[TenantSlots, _made_of(lambda parts: parts.follower_slots)]
EvidenceSlotsDep = Annotated[TenantSlots, _made_of(lambda parts: parts.evidence_slots)]
DownloadSlotsDep = Annotated[TenantSlots, _made_of(lambda parts: parts.download_slots)]
PageDep = Annotated[Mapping[str, PageFile], _made_of(lambda parts: parts.page)]
ReadinessDep = Annotated[Readiness, Depends(_readiness)]
