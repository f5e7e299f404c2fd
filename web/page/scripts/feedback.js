/** Whether people agree with an answer, and why; kept beside the slide, and exported for those who improve the model. */

import { api } from "./api.js";
import { decorateCards } from "./cards.js";
import { button, element } from "./elements.js";

const VERDICTS = { agree: "Agree", disagree: "Disagree", unsure: "Unsure" };
const MOST_WORDS = 2000;
let cards = 0;

export function startFeedback() {
  decorateCards((answer, card) => {
    if (answer.turn !== null) card.actions.append(verdictButtons(answer, card));
  });
}

function verdictButtons(answer, card) {
  const path = `/v1/conversations/${answer.conversationId}/turns/${answer.turn}/feedback`;
  const words = wordsForm(path, card);
  const says = element("span", { class: "small", role: "status" });
  const group = element("span", { class: "verdicts", role: "group", "aria-label": "What you think of this answer" });
  const buttons = new Map(
    Object.entries(VERDICTS).map(([verdict, text]) => [
      verdict,
      button(text, () => choose(verdict), { "aria-pressed": "false", dataset: { verdict } }),
    ]),
  );
  group.append(...buttons.values(), says);

  function show(verdict) {
    for (const [name, it] of buttons) it.setAttribute("aria-pressed", String(name === verdict));
    words.show(verdict);
  }

  /** The same verdict again takes it back. */
  async function choose(verdict) {
    const isTakenBack = buttons.get(verdict).getAttribute("aria-pressed") === "true";
    try {
      if (isTakenBack) await api.json("DELETE", path);
      else await api.json("PUT", path, { body: { verdict, words: words.text || null } });
      says.textContent = "";
      show(isTakenBack ? null : verdict);
      words.bringIntoView();
    } catch (error) {
      says.textContent = error.detail ?? String(error);
    }
  }

  // Nothing was said of an answer that has just come; 404 where nothing was said of an earlier one.
  if (answer.isRestored) api.get(path).then((given) => (words.fill(given.words), show(given.verdict)), () => {});
  return group;
}

/** Appears with a verdict. */
function wordsForm(path, card) {
  const id = `words-${++cards}`;
  const field = element("input", { id, type: "text", maxlength: MOST_WORDS, autocomplete: "off" });
  const says = element("span", { class: "small", role: "status" });
  const form = element(
    "form",
    { class: "verdict-words", hidden: true },
    element("label", { for: id, text: "Why? Write nothing about a patient." }),
    element("span", { class: "field-row" }, field, element("button", { type: "submit", text: "Keep" })),
    says,
  );
  let verdict = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await api.json("PUT", path, { body: { verdict, words: field.value.trim() || null } });
      says.textContent = "Kept.";
    } catch (error) {
      says.textContent = error.detail ?? String(error);
    }
  });
  card.below.append(form);
  return {
    get text() {
      return field.value.trim();
    },
    fill(words) {
      field.value = words ?? "";
    },
    show(chosen) {
      verdict = chosen;
      form.hidden = chosen === null;
    },
    bringIntoView() {
      form.scrollIntoView({ block: "nearest" });
    },
  };
}
