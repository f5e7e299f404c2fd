/** A draft of a report from the answers about the chosen slide; every sentence leads to the answer that it comes from. */

import { scopeWords } from "./cards.js";
import { copy } from "./copy.js";
import { button, byId, element } from "./elements.js";
import { draftOf, exportOf, isUnedited } from "./report_text.js";
import { store } from "./store.js";
import { showCard } from "./thread_view.js";

/** Drafts by slide: `{sentences, taken}`, where `taken` are the answers that are in it already. */
const drafts = new Map();

export function startReport() {
  const opener = button("Draft from answers", () => show(), { id: "report-opener", disabled: true });
  byId("menu").append(opener);
  const heard = new WeakSet();
  const refresh = () => {
    opener.disabled = answers().length === 0;
  };
  store.on("thread", (thread) => {
    if (thread && !heard.has(thread)) {
      heard.add(thread);
      thread.addEventListener("change", refresh);
    }
    refresh();
  });
}

const answers = () => (store.get("thread")?.answers ?? []).filter(({ state }) => state === "done");

function draft() {
  const slideId = store.get("slideId");
  const kept = drafts.get(slideId) ?? { sentences: [], taken: [] };
  for (const answer of answers().filter((it) => !kept.taken.includes(it))) {
    kept.taken.push(answer);
    kept.sentences.push(...draftOf([sourceOf(answer, kept.taken.length)]));
  }
  drafts.set(slideId, kept);
  return kept;
}

const sourceOf = (answer, number) => ({
  number,
  text: answer.text,
  question: answer.question,
  scope: scopeWords(answer.scope),
  model: answer.model,
  encoderId: answer.encoderId,
  at: new Date(answer.at).toISOString(),
  conversationId: answer.conversationId,
  turn: answer.turn,
  requestId: answer.requestId,
  notice: answer.notice,
  warnings: answer.warnings.map(({ detail }) => detail),
});

function show() {
  const dialog = byId("report");
  const { sentences, taken } = draft();
  const [{ slide, notice }] = answers();
  const list = element("ol", { class: "sentences" });
  const count = element("p", { class: "small", role: "status" });
  const changes = {
    /** A sentence was edited. */
    noteEdit() {
      const kept = sentences.filter(({ text }) => text.trim());
      count.textContent = `${kept.filter(isUnedited).length} of ${kept.length} sentences are as the model wrote them.`;
    },
    strike(sentence) {
      sentences.splice(sentences.indexOf(sentence), 1);
      fill();
    },
    visit(answer) {
      dialog.close();
      showCard(answer);
    },
  };
  function fill() {
    list.replaceChildren(...sentences.map((sentence) => row(sentence, taken[sentence.source?.number - 1], changes)));
    changes.noteEdit();
  }
  function addOwn() {
    sentences.push({ original: "", text: "", source: null });
    fill();
    list.lastElementChild.querySelector("textarea").focus();
  }
  const text = () => exportOf(sentences, { filename: slide.filename, slideId: slide.id, madeAt: new Date().toISOString() });
  dialog.replaceChildren(
    element("h2", { id: "report-heading", text: `Draft of a report: ${slide.filename}` }),
    element("p", { class: "report-notice", text: notice }),
    element("p", { class: "small", text: "Made of the answers. Hold each sentence against the slide; what you change is marked as edited." }),
    list,
    button("Add a sentence", addOwn, { class: "quiet" }),
    count,
    element(
      "div",
      { class: "dialog-buttons" },
      button("Close", () => dialog.close()),
      button("Copy", (event) => copy(text(), event.target)),
      button("Save as text", () => save(text()), { class: "primary", id: "save-report" }),
    ),
  );
  fill();
  dialog.showModal();
}

/** A sentence to be edited; `answer` is what it comes from, if anything. */
function row(sentence, answer, { noteEdit, strike, visit }) {
  const { source } = sentence;
  const name = source ? `Sentence of answer ${source.number}` : "Sentence of your own";
  const field = element("textarea", { rows: 2, "aria-label": name });
  field.value = sentence.text;
  const mark = element("span", { class: "edit-mark" });
  const toAnswer = answer && button(`Answer ${source.number}`, () => visit(answer), { class: "quiet", title: source.question });
  const about = source && element("span", { class: "small", text: `about ${source.scope}` });
  const foot = element("div", { class: "sentence-foot" }, mark, about, toAnswer, button("Strike out", () => strike(sentence), { class: "quiet" }));
  const item = element("li", {}, field, foot);
  const showMark = () => {
    item.classList.toggle("unedited", isUnedited(sentence));
    mark.textContent = !source ? "your own" : isUnedited(sentence) ? "as the model wrote it" : "edited";
  };
  field.addEventListener("input", () => {
    sentence.text = field.value;
    showMark();
    noteEdit();
  });
  showMark();
  return item;
}

/** Without the slide's file name, which may name a patient. */
function save(text) {
  const link = element("a", { download: "report-draft.txt", href: URL.createObjectURL(new Blob([text], { type: "text/plain" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
