/** The evidence of an answer on its card: how far it is, what stands out, strongest first, or that nothing does. */

import { decorateCards } from "./cards.js";
import { onCommand } from "./commands.js";
import { button, element } from "./elements.js";
import { evidenceOf } from "./evidence.js";
import { choiceWords, dropWords, stepped, strengthOf, STRENGTHS } from "./evidence_cells.js";
import { evidenceOpacity, setOpacity, showEvidence, shownEvidence } from "./evidence_layer.js";
import { store } from "./store.js";
import { say } from "./tool_says.js";
import { setOn, setUsable, tool, toolGroup } from "./toolbar.js";
import { viewer } from "./viewer.js";

const STAGES = { embeddings: "Encoding the slide without its parts", scores: "Asking how likely the answer is without them" };
/** Shows and hides the evidence of an answer, by the answer. */
const toggles = new WeakMap();

export function startEvidencePanel() {
  toolGroup(
    "Evidence",
    tool("Evidence", { key: "E", command: "evidence", title: "Show on which tissue the last answer rests", isSwitch: true }),
  );
  decorateCards(addTo);
  onCommand("evidence", toggleLast);
  onCommand("next-cell", () => step(1));
  onCommand("previous-cell", () => step(-1));
  const listening = new WeakSet();
  store.on("thread", (thread) => {
    if (thread && !listening.has(thread)) {
      listening.add(thread);
      thread.addEventListener("change", showUsable);
    }
    showUsable();
  });
  showUsable();
}

/** Evidence is measured against the kept turn. */
const hasEvidence = (answer) => answer.state === "done" && answer.turn !== null;
const lastAnswer = () => store.get("thread")?.answers.findLast(hasEvidence) ?? null;

function showUsable() {
  const shown = shownEvidence();
  if (shown && shown.answer.slide.id !== store.get("slideId")) close();
  setUsable("evidence", lastAnswer() !== null);
  setOn("evidence", shownEvidence() !== null);
}

function addTo(answer, { actions, below }) {
  if (!hasEvidence(answer)) return;
  const panel = element("section", { class: "evidence", "aria-label": "Evidence", hidden: true });
  const opener = button("Evidence", () => toggle(), { "aria-expanded": "false", class: "evidence-button" });
  let heard = null;
  const setOpen = (isOpen) => {
    panel.hidden = !isOpen;
    opener.setAttribute("aria-expanded", String(isOpen));
  };
  const hide = () => setOpen(false);
  function toggle() {
    if (!panel.hidden) {
      close();
      return;
    }
    hideShown();
    const evidence = evidenceOf(answer);
    if (evidence !== heard) {
      heard = evidence;
      evidence.addEventListener("change", () => show(evidence, panel));
      evidence.addEventListener("settled", () => panel.scrollIntoView({ block: "nearest" }));
    }
    show(evidence, panel);
    setOpen(true);
    open = { hide, panel };
    showEvidence(evidence);
    panel.scrollIntoView({ block: "nearest" });
    setOn("evidence", true);
  }
  actions.append(opener);
  below.append(panel);
  toggles.set(answer, toggle);
}

/** The panel that is open: `{hide, panel}`; one at a time, as over the slide. */
let open = null;

function hideShown() {
  open?.hide();
  open = null;
}

function close() {
  hideShown();
  showEvidence(null);
  setOn("evidence", false);
}

function toggleLast() {
  if (open) return close();
  const answer = lastAnswer();
  if (!answer) return say("There is no answer yet whose evidence could be shown.", true);
  toggles.get(answer)();
}

function step(by) {
  const evidence = shownEvidence();
  if (!evidence) return;
  const chosen = stepped(evidence.chosen, by, evidence.strongest.length);
  if (chosen !== null) choose(evidence, chosen);
}

function choose(evidence, index) {
  evidence.note({ chosen: index });
  const cell = evidence.strongest[index];
  if (viewer.slideId === evidence.answer.slide.id && viewer.isOpen) viewer.show(cell, 0.6);
  say(`Cell ${index + 1} of ${evidence.strongest.length}: ${dropWords(cell.drop)}.`);
}

function show(evidence, panel) {
  const hadFocus = panel.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  panel.replaceChildren(...content(evidence));
  if (hadFocus) panel.querySelector(`[data-focus="${CSS.escape(hadFocus)}"]`)?.focus();
}

function content(evidence) {
  if (evidence.state === "running") return running(evidence);
  if (evidence.state === "broken") return broken(evidence);
  return [...finding(evidence), ...finer(evidence)];
}

function running({ progress, found }) {
  const words = progress ? `${STAGES[progress.stage] ?? progress.stage}: ${progress.done} of ${progress.total}` : "Beginning …";
  return [
    element("p", { class: "small", text: found ? `${found.cells.length} cells of tissue; parts are left out one after the other.` : "" }),
    element("progress", { "aria-label": "Progress of the evidence", ...(progress ? { max: progress.total, value: progress.done } : {}) }),
    element("p", { class: "small", text: words }),
  ];
}

function broken(evidence) {
  return [
    element("p", { class: "mark", role: "status", text: evidence.problem.detail }),
    button("Try again", () => evidence.run(), { dataset: { focus: "again" } }),
  ];
}

function finding(evidence) {
  const { found, strongest } = evidence;
  return [
    element("p", { class: strongest.length ? "finding" : "finding none", role: "status", text: strongest.length ? found.finding : "No part stands out" }),
    strongest.length ? cellList(evidence) : controlWords(found),
    element("p", { class: "small caption", text: found.caption }),
    strongest.length ? legend(found) : null,
    strongest.length ? opacitySlider() : null,
    costs(found),
  ].filter(Boolean);
}

function cellList(evidence) {
  return element(
    "ol",
    { class: "cells", "aria-label": "Cells that stand out, strongest first" },
    evidence.strongest.map((cell, index) => cellItem(evidence, cell, index)),
  );
}

function cellItem(evidence, cell, index) {
  const name = `cell ${index + 1}`;
  const fly = button("", () => choose(evidence, index), {
    class: "quiet cell-button",
    dataset: { focus: `cell-${cell.cell}` },
    title: `Show ${name} on the slide`,
  });
  fly.append(
    element("b", { class: "cell-rank", text: String(index + 1) }),
    element("span", { text: `${dropWords(cell.drop)} (${STRENGTHS[strengthOf(cell.drop)].name})` }),
    element("span", { class: "small", text: `control ${cell.control.toFixed(2)}, ${cell.tiles} ${cell.tiles === 1 ? "tile" : "tiles"}` }),
    cell.choices.length ? element("span", { class: "small", text: choiceWords(cell.choices) }) : "",
  );
  const refine = evidence.parent
    ? null
    : button("Finer", () => lookCloser(evidence, cell), {
        class: "quiet",
        dataset: { focus: `finer-${cell.cell}` },
        "aria-label": `Look at ${name} in finer cells`,
      });
  const isCurrent = index === evidence.chosen;
  return element("li", { "aria-current": isCurrent ? "true" : null, dataset: { cell: cell.cell } }, fly, refine);
}

function lookCloser(evidence, cell) {
  const finer = evidence.refine(cell);
  const showFiner = () => open?.panel.querySelector(".finer")?.scrollIntoView({ block: "nearest" });
  finer.addEventListener("change", () => evidence.note({}));
  finer.addEventListener("settled", showFiner);
  evidence.note({});
  showFiner();
}

function finer({ refined }) {
  if (!refined) return [];
  return [element("section", { class: "finer", "aria-label": "Finer cells" }, element("h4", { text: "In finer cells" }), content(refined))];
}

function controlWords({ cells, threshold }) {
  const largest = Math.max(0, ...cells.map(({ drop }) => drop));
  return element("p", {
    class: "small control",
    text:
      `The largest change is ${largest.toFixed(2)} nats. To stand out it would have to be beyond ${threshold.toFixed(2)}, ` +
      `which is set by leaving out as many tiles from anywhere. So nothing here says that the answer rests on one part more than on another.`,
  });
}

function legend({ threshold }) {
  return element(
    "ul",
    { class: "legend small", "aria-label": "How strong" },
    STRENGTHS.map(({ name, words }, index) =>
      element("li", {}, element("span", { class: `swatch strength-${index}`, "aria-hidden": "true" }), `${name}: ${words}`),
    ),
    element("li", { text: `stands out beyond ${threshold.toFixed(2)} nats` }),
  );
}

function opacitySlider() {
  const slider = element("input", {
    type: "range",
    class: "evidence-opacity",
    min: 0,
    max: 1,
    step: 0.05,
    oninput: () => setOpacity(Number(slider.value)),
    dataset: { focus: "opacity" },
  });
  slider.value = evidenceOpacity();
  return element("label", { class: "small opacity" }, "Overlay ", slider);
}

function costs({ costs: { requests, prefill_tokens: tokens, total_ms: ms } }) {
  return element("p", { class: "small", text: `${requests} readings of the answer, ${tokens} tokens, ${(ms / 1000).toFixed(1)} s.` });
}
