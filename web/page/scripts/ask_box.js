/** The box that questions are typed into. It knows for which slide they were typed, and asks before that changes. */

import { ask, stop } from "./asking.js";
import { beyondAbilities } from "./abilities.js";
import { Answer } from "./answer.js";
import { byId, button, element } from "./elements.js";
import { store } from "./store.js";
import { answersUnderWay } from "./threads.js";

/** A slide that was left while something about it was typed or written: `{id, filename}`. */
let left = null;

export function startAskBox() {
  const form = byId("ask");
  const field = byId("question");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  byId("answers").addEventListener("keydown", (event) => {
    if (event.key === "Escape") stopHere();
  });
  byId("stop").addEventListener("click", stopHere);
  store.on("slideId", (id, before) => noteChange(before));
  for (const name of ["slideId", "slide", "slideGone", "thread", "scope", "reachable"]) store.on(name, show);
  store.on("thread", (thread) => thread?.addEventListener("change", show));
  show();
}

/** Put words into the box, as if they had been typed. */
export function propose(question) {
  byId("question").value = question;
  byId("question").focus();
}

function stopHere() {
  const answer = store.get("thread")?.underWay;
  if (answer) stop(answer);
}

let named = null;

function noteChange(before) {
  const writing = answersUnderWay().some((answer) => answer.slide.id === before);
  if (before && named && (writing || byId("question").value.trim())) left = { id: before, filename: named };
  if (left?.id === store.get("slideId")) left = null;
  named = store.get("slide")?.filename ?? named;
}

function show() {
  const slide = store.get("slide");
  if (slide) named = slide.filename;
  const underWay = store.get("thread")?.underWay ?? null;
  const canAsk = slide?.status === "ready" && !store.get("slideGone");
  byId("send").hidden = underWay !== null;
  byId("stop").hidden = underWay === null;
  byId("send").disabled = !canAsk;
  byId("question").disabled = !canAsk;
  byId("question").placeholder = canAsk ? "Ask about this slide" : whyNot(slide);
  if (!left) byId("ask-says").replaceChildren();
}

function whyNot(slide) {
  if (!slide || store.get("slideGone")) return "Choose a slide to ask about";
  return slide.status === "failed" ? "This slide cannot be asked about" : "The slide is being prepared";
}

function send() {
  const field = byId("question");
  const question = field.value.trim();
  const slide = store.get("slide");
  if (!question || byId("send").disabled || store.get("thread").underWay) return;
  if (left) return askWhichSlide(question, slide);
  field.value = "";
  sendTo(slide, question);
}

async function sendTo(slide, question, insists = false) {
  const model = store.get("model");
  const beyond = insists ? null : beyondAbilities(question, model);
  if (beyond) return refuse(slide, model, question, beyond);
  await ask({ slide, model, question, scope: store.get("scope") });
}

/** What the model was not taught is not sent to it: it would answer, and nobody would know from what. */
function refuse(slide, model, question, problem) {
  const answer = new Answer({
    state: "refused",
    slide: { id: slide.id, filename: slide.filename },
    model: model.id,
    notice: model.notice,
    question,
    scope: store.get("scope"),
    problem,
  });
  store.get("thread").add(answer);
}

function askWhichSlide(question, slide) {
  const says = byId("ask-says");
  const go = button(`Ask about ${slide.filename}`, () => {
    left = null;
    says.replaceChildren();
    byId("question").value = "";
    sendTo(slide, question);
  });
  says.replaceChildren(
    element("p", { text: `Another slide is shown now: ${slide.filename}, not ${left.filename}.` }),
    element("div", { class: "ask-choices" }, go, button("Do not send", () => says.replaceChildren(), { class: "quiet" })),
  );
  go.focus();
}

