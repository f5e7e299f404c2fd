/** What the model can be asked: its topics as buttons, and a refusal of what lies outside them. */

import { byId, button, element } from "./elements.js";
import { store } from "./store.js";
import { propose } from "./ask_box.js";

/** Words that say what kind of sentence it is, not what it is about. */
const EMPTY_WORDS = new Set(
  ("a about also an and any are as at be been can case could do does for from give has have how i if in is it its kind " +
    "describe description find findings like many me much of on or out please say see seen should show slide so some specimen such tell than that the there these " +
    "they this tissue to very was we what when where which who why will with would you your image picture present " +
    "answer yes no only one word sentence high low really sure").split(" "),
);
/** A question is about a topic when they share a word up to its ending: mitoses, mitotic. */
const STEM_CHARS = 4;
/** What is asked of doctors about patients: beside a word of a topic too, it is asked only of models taught to answer it. */
const OF_PATIENTS = new Set(
  stems(
    "age aged chemotherapy clinical cure dose drug female gender gene genetic her2 male margin metastasis metastatic molecular " +
      "mutation operation outcome patient prognosis radiotherapy recommend recurrence relapse resection sex stage staging " +
      "subtype surgery surgical survival survive therapy treat treatment woman",
  ),
);

export function startAbilities() {
  store.on("model", show);
}

function show(model) {
  const chips = model.topics.map(({ name, example }) =>
    button(name, () => propose(example), { class: "chip", title: example }),
  );
  byId("abilities").replaceChildren(
    ...(chips.length ? [element("span", { class: "small", text: "Can be asked about" }), ...chips] : []),
  );
}

/** A problem for a question that the model was not taught to answer; null for the others, and where nobody knows. */
export function beyondAbilities(question, model) {
  if (!model.topics.length) return null;
  const asked = stems(question);
  const taught = new Set(model.topics.flatMap(({ name, example }) => [...stems(name), ...stems(example)]));
  const isTaught = asked.some((stem) => taught.has(stem));
  const isOfPatients = asked.some((stem) => OF_PATIENTS.has(stem) && !taught.has(stem));
  if (!asked.length || (isTaught && !isOfPatients)) return null;
  const names = model.topics.map(({ name }) => name);
  return {
    code: "beyond_abilities",
    detail: `${model.title} was not taught to answer this, so it was not asked. It can be asked about: ${names.join(", ")}.`,
  };
}

function stems(text) {
  const words = text.toLowerCase().match(/\p{Letter}+/gu) ?? [];
  return words.filter((word) => !EMPTY_WORDS.has(word)).map((word) => word.slice(0, STEM_CHARS));
}
