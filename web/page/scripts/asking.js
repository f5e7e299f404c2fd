/** Sends a question and writes its answer down as it comes; stops it; asks again what broke off. */

import { api, Problem, Unreachable } from "./api.js";
import { Answer } from "./answer.js";
import { noteGone } from "./slides.js";
import { WHOLE_SLIDE } from "./store.js";
import { threadOf } from "./threads.js";

const stops = new WeakMap();
const LAST_EVENTS = ["done", "error"];
/** How a question names the whole slide. */
const WHOLE = "slide";

/** Ask about a slide, in the conversation that goes on about it. */
export async function ask({ slide, model, question, scope = WHOLE_SLIDE }) {
  const thread = threadOf(slide.id);
  const answer = new Answer({
    slide: { id: slide.id, filename: slide.filename },
    model: model.id,
    notice: model.notice,
    question,
    scope,
    conversationId: thread.conversationId,
  });
  thread.add(answer);
  await write(answer, thread);
  return answer;
}

/** Stop an answer that is being written: the server ends the model's request, and keeps nothing of it. */
export function stop(answer) {
  stops.get(answer)?.abort();
}

/** Ask again what broke off, unless the server had finished it after all. */
export async function askAgain(answer) {
  const thread = threadOf(answer.slide.id);
  answer.note({ state: "waiting", text: "", problem: null, warnings: [] });
  const kept = await keptTurn(answer, thread).catch(() => null);
  if (kept) return noteKept(answer, thread, kept);
  answer.note({ requestId: null, at: new Date().toISOString() });
  await write(answer, thread);
}

async function write(answer, thread) {
  const stopping = new AbortController();
  stops.set(answer, stopping);
  try {
    await stream(answer, stopping.signal);
    thread.conversationId = answer.conversationId ?? thread.conversationId;
    thread.loadConversations().catch(() => {});
  } catch (error) {
    await noteFailure(answer, thread, error);
  }
}

async function stream(answer, signal) {
  const body = {
    question: answer.question,
    model: answer.model,
    region: answer.scope.kind === "region" ? answer.scope.region_id : WHOLE,
    ...(answer.conversationId ? { conversation_id: answer.conversationId } : {}),
  };
  const opened = (response) => answer.note({ requestId: response.headers.get("X-Request-Id") });
  const events = api.events("POST", `/v1/slides/${answer.slide.id}/questions`, {
    body,
    signal,
    opened,
    lastNames: LAST_EVENTS,
  });
  for await (const { name, data } of events) {
    if (name === "notice") noteNotice(answer, data);
    else if (name === "token") answer.note({ state: "writing", text: answer.text + data.text });
    else if (name === "done") noteDone(answer, data);
    else if (name === "error") throw new Problem(200, data.code, data.detail);
  }
}

function noteNotice(answer, { notice, model, encoder_id: encoderId, scope, warnings }) {
  answer.note({ notice, model, encoderId, scope: labelled(scope, answer.scope), warnings });
}

function noteDone(answer, data) {
  noteNotice(answer, data);
  answer.note({
    state: "done",
    text: data.answer,
    conversationId: data.conversation_id,
    turn: data.remembered ? data.turn : null,
    at: new Date().toISOString(),
  });
}

/** The server does not know what the page calls a region. */
const labelled = (scope, before) => (before.label ? { ...scope, label: before.label } : scope);

async function noteFailure(answer, thread, error) {
  if (error.name === "AbortError") {
    // It may have been complete at that very moment.
    const kept = await keptTurn(answer, thread).catch(() => null);
    return kept ? noteKept(answer, thread, kept) : answer.note({ state: "stopped" });
  }
  const problem = { code: error.code ?? "bug", detail: error.detail ?? String(error), retryAfterS: error.retryAfterS };
  const mayWork = error instanceof Unreachable || !(error instanceof Problem) || error.status >= 500;
  const isBusy = error.status === 429 || error.status === 200;
  answer.note({ state: mayWork || isBusy ? "broken" : "refused", problem });
  if (error.code === "not_found") {
    try {
      await api.get(`/v1/slides/${answer.slide.id}`);
    } catch (reason) {
      if (reason instanceof Problem) noteGone(answer.slide.id, reason);
    }
  }
}

/** The stored turn of this very request, null when the server kept none. */
async function keptTurn(answer, thread) {
  if (!answer.requestId) return null;
  await thread.loadConversations();
  const ids = answer.conversationId ? [answer.conversationId] : thread.conversations.slice(0, 3).map(({ id }) => id);
  for (const id of ids) {
    const { turns } = await api.get(`/v1/conversations/${id}`);
    const turn = turns.findLast((it) => it.request_id === answer.requestId);
    if (turn) return { conversationId: id, turn };
  }
  return null;
}

function noteKept(answer, thread, { conversationId, turn }) {
  answer.note({
    state: "done",
    text: turn.answer,
    conversationId,
    turn: turn.number,
    encoderId: turn.encoder_id,
    at: turn.created_at,
    problem: null,
  });
  thread.conversationId = conversationId;
}
