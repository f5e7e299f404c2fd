/**
 * What was asked about each slide while the page was open, and the conversation that goes on. A thread belongs to a
 * slide, so an answer stays with its slide whichever one is looked at when it comes.
 */

import { api } from "./api.js";
import { Answer } from "./answer.js";
import { store, WHOLE_SLIDE } from "./store.js";

const threads = new Map();

class Thread extends EventTarget {
  /** Answers, oldest first. */
  answers = [];
  /** The conversation that follow-ups belong to; null before its first turn. */
  conversationId = null;
  /** Of the slide, the last used first, as the API lists them; null before they were loaded. */
  conversations = null;
  /** Whether its last conversation is still looked for. */
  isRestoring = true;
  /** What the next question is about. */
  scope = WHOLE_SLIDE;
  /** What is typed and not sent. */
  draft = "";

  constructor(slideId) {
    super();
    this.slideId = slideId;
  }

  /** How many turns the conversation has. */
  get turns() {
    return this.answers.reduce((most, answer) => Math.max(most, answer.turn ?? 0), 0);
  }

  get underWay() {
    return this.answers.find((answer) => answer.isUnderWay) ?? null;
  }

  add(answer) {
    this.answers.push(answer);
    answer.addEventListener("change", () => this.#tell());
    this.#tell();
  }

  remove(answer) {
    this.answers = this.answers.filter((other) => other !== answer);
    this.#tell();
  }

  /** Begin a new conversation; the old one stays on the server. */
  startAnew() {
    this.answers = this.answers.filter((answer) => answer.isUnderWay);
    this.conversationId = null;
    this.#tell();
  }

  /** Load the list of conversations. */
  async loadConversations() {
    const query = new URLSearchParams({ slide: this.slideId, limit: 50 });
    this.conversations = (await api.get(`/v1/conversations?${query}`)).data;
    this.#tell();
  }

  /** Show an earlier conversation, and go on with it; with `onlyIfUnasked` not when something was asked meanwhile. */
  async open(conversationId, onlyIfUnasked = false) {
    const conversation = await api.get(`/v1/conversations/${conversationId}`);
    if (onlyIfUnasked && this.answers.length) return;
    const slide = knownSlide(this.slideId);
    const models = new Map(store.get("models").map((model) => [model.id, model]));
    const current = store.get("model");
    this.startAnew();
    this.conversationId = conversationId;
    for (const turn of conversation.turns) {
      const model = models.get(turn.model) ?? current;
      this.add(Answer.ofTurn(turn, { conversationId, slide, model: model.id, notice: model.notice }));
    }
  }

  /** Forget a conversation, here and on the server. */
  async delete(conversationId) {
    await api.json("DELETE", `/v1/conversations/${conversationId}`);
    if (this.conversationId === conversationId) this.startAnew();
    await this.loadConversations();
  }

  noteRestored() {
    this.isRestoring = false;
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The thread of a slide; the same one each time. */
export function threadOf(slideId) {
  if (!threads.has(slideId)) threads.set(slideId, new Thread(slideId));
  return threads.get(slideId);
}

/** Answers that are being written, whatever their slide. */
export function answersUnderWay() {
  return [...threads.values()].map((thread) => thread.underWay).filter(Boolean);
}

/** The thread of the chosen slide, with the conversation that was last about it. */
export function startThreads() {
  store.on("slideId", (id) => {
    store.set("thread", id ? threadOf(id) : null);
    store.set("scope", store.get("thread")?.scope ?? WHOLE_SLIDE);
    restore();
  });
  store.on("scope", (scope) => {
    const thread = store.get("thread");
    if (thread) thread.scope = scope;
  });
  store.on("model", restore);
  store.on("reachable", (reachable) => reachable && restore());
}

/** Once for each slide, as soon as its conversations can be read. */
async function restore() {
  const thread = store.get("thread");
  if (!thread || thread.conversations !== null || !store.get("model")) return;
  try {
    await thread.loadConversations();
    const [latest] = thread.conversations;
    if (latest?.title) await thread.open(latest.id, true);
  } catch {
    // Said elsewhere: the slide is gone, or the server is away.
  } finally {
    thread.noteRestored();
  }
}

function knownSlide(id) {
  const slide = store.get("slides").find((other) => other.id === id) ?? store.get("slide");
  return { id, filename: slide?.id === id ? slide.filename : id.slice(0, 12) };
}
