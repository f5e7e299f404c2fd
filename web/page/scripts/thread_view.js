/** The cards of the chosen slide, the newest last and in view, and a line about answers of other slides. */

import { cardOf } from "./cards.js";
import { byId, button, element } from "./elements.js";
import { chooseSlide } from "./slides.js";
import { store } from "./store.js";
import { answersUnderWay } from "./threads.js";
import { showView } from "./views.js";

const cards = new WeakMap();
const NEAR_END_PX = 80;

export function startThreadView() {
  let listening = new Set();
  store.on("thread", (thread) => {
    if (thread && !listening.has(thread)) {
      listening.add(thread);
      thread.addEventListener("change", () => show());
    }
    show();
  });
  show();
}

/** Bring an answer of the chosen slide into view, and the focus to it. */
export function showCard(answer) {
  showView("answers");
  const card = cards.get(answer);
  card.tabIndex = -1;
  card.scrollIntoView({ block: "nearest" });
  card.focus();
}

function show() {
  showElsewhere();
  const thread = store.get("thread");
  const place = byId("thread");
  place.setAttribute("aria-busy", String(thread?.isRestoring ?? false));
  const wasAtEnd = place.scrollHeight - place.scrollTop - place.clientHeight < NEAR_END_PX;
  const shown = (thread?.answers ?? []).map((answer) => {
    if (!cards.has(answer)) cards.set(answer, cardOf(answer));
    return cards.get(answer);
  });
  const isNew = shown.length > 0 && !place.contains(shown.at(-1));
  if (!shown.length) {
    place.replaceChildren(element("p", { class: "empty-words", text: emptyWords(thread) }));
  } else if (shown.length !== place.children.length || shown.some((card, index) => place.children[index] !== card)) {
    place.replaceChildren(...shown);
  }
  if (wasAtEnd || isNew) place.scrollTop = place.scrollHeight;
}

function emptyWords(thread) {
  if (!thread) return "";
  return thread.isRestoring ? "Looking for earlier questions …" : "No questions yet.";
}

function showElsewhere() {
  const others = answersUnderWay().filter((answer) => answer.slide.id !== store.get("slideId"));
  byId("elsewhere").replaceChildren(
    ...others.map((answer) =>
      element(
        "p",
        {},
        element("span", { text: `An answer about ${answer.slide.filename} is being written. ` }),
        button("Go there", () => chooseSlide(answer.slide.id).catch(() => {}), { class: "quiet" }),
      ),
    ),
  );
}
