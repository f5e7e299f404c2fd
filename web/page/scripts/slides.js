/** The slides of this tenant: loaded, followed while they are encoded, chosen, found to be gone. */

import { api, Problem } from "./api.js";
import { store } from "./store.js";

const PAGE_SIZE = 40;
const FOLLOW_AGAIN_S = 2;
const LAST_EVENTS = ["ready", "failed", "error"];
const following = new Set();
/** `{query, text}`: which parameter of the API looks for what; all slides without a text. */
let search = { query: "name", text: "" };
let nextCursor = null;

/** Load the newest slides that are looked for by `{query, text}`, or as before. */
export async function loadSlides(wanted = search) {
  search = wanted;
  const page = await fetchPage("");
  if (search !== wanted) return; // somebody typed on meanwhile
  nextCursor = page.next_cursor;
  store.set("slides", page.data);
  page.data.filter(isUnderWay).forEach(follow);
}

/** Load the next, older ones. */
export async function loadOlderSlides() {
  const page = await fetchPage(nextCursor);
  nextCursor = page.next_cursor;
  store.set("slides", [...store.get("slides"), ...page.data]);
}

export const hasOlderSlides = () => nextCursor !== null;

/** Choose a slide by its id, as it stands now. */
export async function chooseSlide(id) {
  store.set("slideGone", null);
  const known = store.get("slides").find((slide) => slide.id === id) ?? null;
  store.set("slide", known);
  store.set("slideId", id);
  await refreshSlide(id);
}

/** Ask how a slide stands. When it is gone and is the chosen one, whoever shows it is told. */
export async function refreshSlide(id) {
  try {
    noteSlide(await api.get(`/v1/slides/${id}`));
  } catch (error) {
    noteGone(id, error);
  }
}

/** When a request about a slide was refused: is the slide gone? Whoever got another error throws it on. */
export function noteGone(id, error) {
  if (!(error instanceof Problem) || error.code !== "not_found") throw error;
  store.set("slides", store.get("slides").filter((slide) => slide.id !== id));
  if (store.get("slideId") === id) store.set("slideGone", { code: error.code, detail: error.detail });
}

/** A slide as the API has just shown it; follows it while it is encoded. */
export function noteSlide(slide) {
  const slides = store.get("slides");
  const isKnown = slides.some((other) => other.id === slide.id);
  store.set("slides", isKnown ? slides.map((other) => (other.id === slide.id ? slide : other)) : [slide, ...slides]);
  if (store.get("slideId") === slide.id) {
    store.set("slideGone", null);
    store.set("slide", slide);
  }
  if (isUnderWay(slide)) follow(slide);
}

/** Encode a slide (again); `wishes` as the API takes them, e.g. `{mpp: 0.5}`. */
export async function encodeSlide(id, wishes = {}) {
  noteSlide(await api.json("POST", `/v1/slides/${id}/encode`, { body: { priority: "urgent", ...wishes } }));
}

export async function deleteSlide(id) {
  await api.json("DELETE", `/v1/slides/${id}`).catch((error) => noteGone(id, error));
  store.set("slides", store.get("slides").filter((slide) => slide.id !== id));
  if (store.get("slideId") === id) {
    store.set("slideGone", { code: "deleted", detail: "You deleted this slide, with all that was made of it." });
  }
}

/** When the server is back, or somebody else has signed in: everything may have changed. */
export function startSlides() {
  const again = () => {
    loadSlides().catch(() => {});
    if (store.get("slideId")) refreshSlide(store.get("slideId")).catch(() => {});
  };
  store.on("reachable", (reachable) => reachable && again());
}

const isUnderWay = (slide) => slide.status === "queued" || slide.status === "encoding";

function fetchPage(cursor) {
  const query = new URLSearchParams({ limit: PAGE_SIZE });
  if (search.text) query.set(search.query, search.text);
  if (cursor) query.set("cursor", cursor);
  return api.get(`/v1/slides?${query}`);
}

/** Until it is ready or has failed, over restarts of the server and lost networks. */
async function follow({ id }) {
  if (following.has(id)) return;
  following.add(id);
  try {
    while (!(await followOnce(id))) await new Promise((resolve) => setTimeout(resolve, 1000 * FOLLOW_AGAIN_S));
  } finally {
    following.delete(id);
  }
  await refreshSlide(id).catch(() => {});
}

/** Whether that is over. */
async function followOnce(id) {
  try {
    for await (const event of api.events("GET", `/v1/slides/${id}/events`, { lastNames: LAST_EVENTS })) {
      if (event.name === "progress") noteProgress(id, event.data);
      else return event.name !== "error";
    }
  } catch (error) {
    return error instanceof Problem && error.status === 404;
  }
  return false;
}

function noteProgress(id, progress) {
  const slide = store.get("slides").find((other) => other.id === id);
  if (slide) noteSlide({ ...slide, status: "encoding", progress });
}
