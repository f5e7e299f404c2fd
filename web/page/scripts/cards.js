/**
 * An answer as a card that says whose it is: slide, scope, model, encoder, time, request.
 *
 * Other parts add to cards by `decorateCards(add)`: `add(answer, card)` is called once for every card whose answer is
 * complete, where `card` is `{element, text, actions, below}`: the whole, the answer's words, the row of buttons, and
 * the room below it.
 */

import { askAgain } from "./asking.js";
import { copy } from "./copy.js";
import { doubtElements } from "./doubts.js";
import { button, element, momentElement } from "./elements.js";
import { thumbnail } from "./thumbnails.js";

const decorations = [];
/** Enough of an id to tell two apart on a screen; the copy has all of it. */
const SHORT = 8;

/** From now on, for every card that becomes complete. */
export function decorateCards(add) {
  decorations.push(add);
}

/** The card of an answer, which follows it. */
export function cardOf(answer) {
  const parts = {
    text: element("div", { class: "answer-text" }),
    doubts: element("div", { class: "card-doubts" }),
    says: element("div", { class: "card-says" }),
    facts: element("dl", { class: "card-facts" }),
    actions: element("div", { class: "card-actions" }),
    below: element("div", { class: "card-below" }),
  };
  const card = element(
    "article",
    { class: "card", "aria-label": `Answer about ${answer.slide.filename}` },
    element(
      "header",
      { class: "card-head" },
      thumbnail(answer.slide.id),
      element("h3", { class: "card-question", text: answer.question }),
    ),
    parts.doubts,
    parts.text,
    parts.says,
    parts.facts,
    parts.actions,
    parts.below,
  );
  parts.element = card;
  const refresh = () => show(answer, parts);
  answer.addEventListener("change", refresh);
  refresh();
  return card;
}

function show(answer, parts) {
  parts.element.dataset.state = answer.state;
  parts.doubts.replaceChildren(...doubtElements(answer.warnings));
  if (parts.text.textContent !== answer.text && !parts.decorated) parts.text.textContent = answer.text;
  parts.says.replaceChildren(...says(answer));
  parts.facts.replaceChildren(...factElements(answer));
  if (answer.state === "done" && !parts.decorated) {
    parts.decorated = true;
    parts.actions.append(button("Copy", (event) => copy(asText(answer), event.target)));
    for (const add of decorations) add(answer, parts);
  }
}

function says(answer) {
  const { state, problem } = answer;
  if (state === "waiting") return [element("p", { class: "quiet-words", text: "The model reads the question …" })];
  if (state === "stopped") return [element("p", { class: "mark", text: "Stopped, not remembered." }), again(answer)];
  if (state === "refused") return [element("p", { class: "mark", text: problem.detail })];
  if (state === "broken") {
    const broke = answer.text ? "The answer broke off and is not complete. " : "";
    return [element("p", { class: "mark", text: `${broke}${problem.detail}` }), again(answer)];
  }
  if (state === "done" && answer.turn === null) {
    return [element("p", { class: "mark", text: "This answer could not be stored: a follow-up will not know of it." })];
  }
  return [];
}

const again = (answer) => button("Ask again", () => askAgain(answer));

function factElements(answer) {
  return facts(answer).map(([name, value, title]) =>
    element(
      "div",
      {},
      element("dt", { text: name }),
      element("dd", { title }, value instanceof Node ? value : document.createTextNode(value)),
    ),
  );
}

/** What the card says of itself: name, value, and the whole value where it is shortened. */
function facts(answer) {
  return [
    ["Slide", answer.slide.filename, answer.slide.id],
    ["Scope", scopeWords(answer.scope)],
    ["Model", answer.model],
    ["Encoder", shortened(answer.encoderId), answer.encoderId],
    ["Time", momentElement(answer.at)],
    ["Request", shortened(answer.requestId), answer.requestId],
  ].filter(([, value]) => value);
}

const shortened = (text) => (text && text.length > SHORT + 2 ? `${text.slice(0, SHORT)}…` : text);

/** A scope as people read it. */
export function scopeWords(scope) {
  if (scope.kind !== "region") return "whole slide";
  const area = scope.area_mm2 ? `, ${Number(scope.area_mm2).toPrecision(2)} mm²` : "";
  return `${scope.label ?? "region"} (${scope.tiles} tiles${area})`;
}

/** A card in words, with everything that is needed to know whose answer it is. */
export function asText(answer) {
  return [
    `Question: ${answer.question}`,
    `Answer: ${answer.text}`,
    ...answer.warnings.map(({ detail }) => `Doubt: ${detail}`),
    "",
    `Slide: ${answer.slide.filename} (${answer.slide.id})`,
    `Scope: ${scopeWords(answer.scope)}${answer.scope.region_id ? ` ${answer.scope.region_id}` : ""}`,
    `Model: ${answer.model}, encoder ${answer.encoderId}`,
    `Time: ${new Date(answer.at).toISOString()}`,
    `Request: ${answer.requestId}`,
    `Notice: ${answer.notice}`,
    "",
  ].join("\n");
}
