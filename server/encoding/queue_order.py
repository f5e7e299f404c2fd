"""In which order waiting slides are taken: tenants take turns, and urgent means first, not alone.

The rule stands here twice: `TAKE_NEXT_JOB` takes the next job, in Redis and in one step; `slides_ahead` says how many
will be taken before a tenant's. A test holds them together. docs/decisions/0003 says why it is so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# Whose turn it was, and how long that is remembered.
TURNS_KEY = "eyepiece:encode-turns"
TURNS_TTL_S = 86_400
# While both wait, a routine job is taken after so many urgent ones at the latest.
URGENT_IN_A_ROW = 4
# The next job, in one step from its queue to that queue's active list, where SAQ's sweep finds it if its worker dies.
# Of each queue, the tenant whose last turn is longest ago, and of its jobs the one that waits longest. Then the urgent
# one, unless it is routine jobs' turn: for the same tenant after ARGV[1] urgent jobs, for another one that has waited
# since before the urgent one's tenant had its last turn, after one, or at once when nobody had a turn since.
# It reads both lists, 2 MB and some 10 ms when 10,000 jobs wait, once for every slide that is encoded.
TAKE_NEXT_JOB = """
    local turns = KEYS[5]
    local function first_of(queued)
        local first, seen = nil, {}
        for _, id in ipairs(redis.call('LRANGE', queued, 0, -1)) do
            local tenant = string.match(id, '^saq:job:[^:]+:[^:]+:([^:]+):') or ''
            if not seen[tenant] then
                seen[tenant] = true
                local turn = tonumber(redis.call('HGET', turns, tenant) or '0')
                if first == nil or turn < first.turn then first = {id = id, tenant = tenant, turn = turn} end
            end
        end
        return first
    end

    local urgent, routine = first_of(KEYS[1]), first_of(KEYS[3])
    if not urgent and not routine then return false end
    local in_a_row = tonumber(redis.call('HGET', turns, ':urgent') or '0')
    local takes_urgent = urgent ~= nil
    if urgent and routine then
        local had_last = urgent.turn >= tonumber(redis.call('HGET', turns, ':turn') or '0')
        local others_turn = urgent.tenant ~= routine.tenant and routine.turn < urgent.turn
        others_turn = others_turn and (in_a_row >= 1 or had_last)
        takes_urgent = in_a_row < tonumber(ARGV[1]) and not others_turn
    end
    local chosen, queued, active = routine, KEYS[3], KEYS[4]
    if takes_urgent then chosen, queued, active = urgent, KEYS[1], KEYS[2] end

    redis.call('LREM', queued, 1, chosen.id)
    redis.call('RPUSH', active, chosen.id)
    redis.call('HSET', turns, chosen.tenant, redis.call('HINCRBY', turns, ':turn', 1))
    redis.call('HSET', turns, ':urgent', (takes_urgent and routine) and in_a_row + 1 or 0)
    redis.call('EXPIRE', turns, ARGV[2])
    return {takes_urgent and 1 or 0, chosen.id}
"""

# Of both queues: the tenants in the order of their first jobs, each with how many wait. As cheap as taking one.
COUNT_WAITING = """
    local function counted(queued)
        local tenants, counts = {}, {}
        for _, id in ipairs(redis.call('LRANGE', queued, 0, -1)) do
            local tenant = string.match(id, '^saq:job:[^:]+:[^:]+:([^:]+):') or ''
            if not counts[tenant] then tenants[#tenants + 1] = tenant end
            counts[tenant] = (counts[tenant] or 0) + 1
        end
        local found = {}
        for _, tenant in ipairs(tenants) do
            found[#found + 1] = tenant
            found[#found + 1] = counts[tenant]
        end
        return found
    end
    return {counted(KEYS[1]), counted(KEYS[2]), redis.call('HGETALL', KEYS[3])}
"""


@dataclass(frozen=True)
class Waiting:
    """How many jobs of each tenant wait in both queues, in the order of its first one, and whose turn it was when."""

    urgent: Mapping[str, int]
    routine: Mapping[str, int]
    turns: Mapping[str, int]


def slides_ahead(waiting: Waiting, tenant: str) -> int:
    """How many jobs of other tenants are taken before the first one of `tenant`, if no more come; where none of its own
    waits, before a routine one that came now."""
    urgent, routine, turns = dict(waiting.urgent), dict(waiting.routine), dict(waiting.turns)
    if tenant not in urgent and tenant not in routine:
        routine[tenant] = 1
    ahead = 0
    while True:
        is_urgent, chosen = _next(urgent, routine, turns)
        if chosen == tenant:
            return ahead
        ahead += 1
        queued = urgent if is_urgent else routine
        turns[":urgent"] = turns.get(":urgent", 0) + 1 if is_urgent and routine else 0
        turns[":turn"] = turns[chosen] = turns.get(":turn", 0) + 1
        queued[chosen] -= 1
        if not queued[chosen]:
            del queued[chosen]


def _next(urgent: Mapping[str, int], routine: Mapping[str, int], turns: Mapping[str, int]) -> tuple[bool, str]:
    """Whether the next job is urgent, and whose it is."""
    if not urgent or not routine:
        return bool(urgent), _longest_ago(urgent or routine, turns)
    first, other = _longest_ago(urgent, turns), _longest_ago(routine, turns)
    in_a_row, turn = turns.get(":urgent", 0), turns.get(first, 0)
    had_last = turn >= turns.get(":turn", 0)
    is_others_turn = first != other and turns.get(other, 0) < turn and (in_a_row >= 1 or had_last)
    is_urgent = in_a_row < URGENT_IN_A_ROW and not is_others_turn
    return is_urgent, first if is_urgent else other


def _longest_ago(queued: Mapping[str, int], turns: Mapping[str, int]) -> str:
    """The tenant whose last turn is longest ago; of those that had none, the one that waits longest."""
    return min(queued, key=lambda tenant: turns.get(tenant, 0))
