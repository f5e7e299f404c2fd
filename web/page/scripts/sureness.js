/**
 * "Are you sure?": the same question in other words, three times, each in a chat of its own that is not kept. Where the
 * answers differ, that is said. It says nothing of how likely an answer is: a model can be wrong in the same way each time.
 */

import { api } from "./api.js";
import { decorateCards } from "./cards.js";
import { button, element } from "./elements.js";

/** The last one makes models that were taught phrases choose. */
const WORDINGS = [
  (question) => `Look at the whole image again. ${question}`,
  (question) => `I would like to know: ${lowered(question)}`,
  (question) => `${question} Answer yes or no.`,
  (question) => `${question} Answer in one sentence.`,
];
const CLOSED = /^(is|are|was|were|do|does|did|has|have|can|could|should|will|would)\b/i;
const ASKS_YES_OR_NO = /\byes or no\b/i;

export function startSureness() {
  decorateCards((answer, card) => {
    const result = element("div", { class: "sureness", role: "status" });
    card.below.append(result);
    const ask = button("Are you sure?", async () => {
      ask.disabled = true;
      await compare(answer, result);
      ask.disabled = false;
    });
    ask.title = "Ask the same in three other wordings, and compare";
    card.actions.append(ask);
  });
}

async function compare(answer, result) {
  result.replaceChildren(element("p", { class: "quiet-words", text: "Asking in other words …" }));
  const wordings = wordingsOf(answer.question);
  try {
    const answers = [];
    for (const question of wordings) answers.push({ question, text: await askOnce(answer, question) });
    show(result, [{ question: answer.question, text: answer.text }, ...answers]);
  } catch (error) {
    result.replaceChildren(element("p", { class: "mark", text: error.detail ?? String(error) }));
  }
}

/** Three wordings that are not the question's own. */
export function wordingsOf(question) {
  if (ASKS_YES_OR_NO.test(question)) {
    const open = question.replace(/[\s,]*(please\s+)?answer (with )?yes or no\b\.?/i, "").trim();
    return [open, WORDINGS[0](open), WORDINGS[1](open)];
  }
  return [WORDINGS[0], WORDINGS[1], CLOSED.test(question) ? WORDINGS[2] : WORDINGS[3]].map((word) => word(question));
}

async function askOnce(answer, question) {
  const region = answer.scope.kind === "region" ? { region: answer.scope.region_id } : {};
  const content = [
    { type: "slide", slide: { id: answer.slide.id, ...region } },
    { type: "text", text: question },
  ];
  const body = { model: answer.model, messages: [{ role: "user", content }] };
  const { choices } = await api.json("POST", "/v1/chat/completions", { body });
  return choices[0].message.content;
}

const VERDICTS = {
  same: "The other wordings got the same answer. It may be wrong all the same.",
  same_stance: "The other wordings got the same yes or no, but not in the same words: read them.",
  different: "The wordings got different answers: rely on none of them without looking.",
};

function show(result, answers) {
  const verdict = comparison(answers.map(({ text }) => text));
  result.dataset.comparison = verdict;
  result.replaceChildren(
    element("p", { class: verdict === "same" ? "agreement" : "doubt", text: VERDICTS[verdict] }),
    element(
      "ul",
      {},
      answers.slice(1).map(({ question, text }) =>
        element("li", {}, element("span", { class: "small", text: question }), element("span", { text })),
      ),
    ),
  );
}

/** Whether answers say the same, by yes and no where they begin so, and by their words. */
export function comparison(texts) {
  const stances = texts.map(stance);
  if (stances.some((it) => it !== stances[0])) return "different";
  const spoken = new Set(texts.map(words).filter((text) => text !== stances[0]));
  if (spoken.size <= 1) return "same";
  return stances[0] === null ? "different" : "same_stance";
}

/** `yes` or `no` where an answer begins so. */
const stance = (text) => text.trim().match(/^(yes|no)\b/i)?.[1].toLowerCase() ?? null;

const words = (text) => (text.toLowerCase().match(/[\p{Letter}\p{Number}]+/gu) ?? []).join(" ");

function lowered(question) {
  return /^[A-Z][a-z]/.test(question) ? question[0].toLowerCase() + question.slice(1) : question;
}
