"""Somebody judges a turn: the turn is copied with the verdict, so that it outlives the conversation, not the slide."""

from dataclasses import dataclass

from server.asking.conversations import Conversation, Conversations
from server.asking.scope import RegionScope
from server.errors import NotFound
from server.slides.catalogue import SlideCatalogue
from server.slides.feedback import FeedbackRecord, FeedbackShelf, TurnName, Verdict
from server.slides.slide_record import now
from server.slides.usage import Usage


@dataclass(frozen=True)
class GiveFeedback:
    """Feedback on the turns of conversations of all tenants."""

    slides: SlideCatalogue
    conversations: Conversations
    feedback: FeedbackShelf
    usage: Usage

    async def give(
        self, tenant: str, conversation_id: str, number: int, verdict: Verdict, words: str | None
    ) -> FeedbackRecord:
        """Keep a verdict in place of an earlier one; the same verdict again changes nothing.

        Raises:
            NotFound: there is no such conversation, turn or slide.
            ConversationDamaged: what is kept of the conversation cannot be read.
        """
        name = _turn_of(await self.conversations.require(tenant, conversation_id), number)
        # A deletion, of the slide or of the conversation, must not leave what is written meanwhile.
        async with self.slides.lock(tenant, name.slide_id):
            await self.slides.require_readable_or_not(tenant, name.slide_id)
            turn = (await self.conversations.require(tenant, conversation_id)).turns[number - 1]
            given = await self.feedback.find(tenant, name)
            if given is not None and (given.verdict, given.words) == (verdict, words):
                return given
            record = FeedbackRecord(
                slide_id=name.slide_id,
                conversation_id=name.conversation_id,
                turn=number,
                question=turn.question,
                answer=turn.answer,
                model=turn.model,
                encoder_id=turn.encoder_id,
                request_id=turn.request_id,
                region_id=turn.scope.region_id if isinstance(turn.scope, RegionScope) else None,
                answered_at=turn.created_at,
                verdict=verdict,
                words=words,
                given_at=now(),
            )
            await self.usage.count_stored(tenant, await self.feedback.put(tenant, record))
        return record

    async def look(self, tenant: str, conversation_id: str, number: int) -> FeedbackRecord:
        """What was given for a turn.

        Raises:
            NotFound: there is no such conversation or turn, or nothing was given for it.
            ConversationDamaged: what is kept of the conversation cannot be read.
        """
        name = _turn_of(await self.conversations.require(tenant, conversation_id), number)
        given = await self.feedback.find(tenant, name)
        if given is None:
            raise NotFound("Nobody has given feedback on this turn.")
        return given

    async def take_back(self, tenant: str, conversation_id: str, number: int) -> None:
        """Delete what was given for a turn, with the copy of it.

        Raises:
            NotFound, ConversationDamaged: as `look`.
        """
        name = _turn_of(await self.conversations.require(tenant, conversation_id), number)
        async with self.slides.lock(tenant, name.slide_id):
            removed = await self.feedback.remove(tenant, name)
            if not removed:
                raise NotFound("Nobody has given feedback on this turn.")
            await self.usage.give_room_back(tenant, removed)

    async def forget_conversation(self, tenant: str, conversation_id: str) -> None:
        """Delete a conversation, readable or not, and what was copied of it into feedback; of one that does not say any
        more which slide it is about, the copies go with the slide.

        Raises:
            NotFound: there is none.
        """
        slide_id = await self.conversations.slide_of(tenant, conversation_id)
        if slide_id is None:
            await self.conversations.forget(tenant, conversation_id)
            return
        async with self.slides.lock(tenant, slide_id):
            removed = await self.feedback.remove_conversation(tenant, slide_id, conversation_id)
            await self.usage.give_room_back(tenant, removed)
            await self.conversations.forget(tenant, conversation_id)


def _turn_of(conversation: Conversation, number: int) -> TurnName:
    if number > len(conversation.turns):
        raise NotFound(f"This conversation has no turn {number}; it has {len(conversation.turns)}.")
    return TurnName(conversation.slide_id, conversation.id, number)
