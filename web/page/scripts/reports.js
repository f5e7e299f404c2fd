/** The reports of the chosen slide, which the server keeps: listed, written, followed, read, deleted. */

import { api } from "./api.js";
import { may } from "./caller.js";
import { confirmed } from "./confirm.js";
import { button, byId, element, momentElement } from "./elements.js";
import { reportForm } from "./report_form.js";
import { reportElements } from "./report_reading.js";
import { ReportRun } from "./report_run.js";
import { store } from "./store.js";

/** By slide: the report that is being written of it, or was last. */
const runs = new Map();

export function startReports() {
  byId("menu").append(button("Reports", open, { id: "reports-opener" }));
  for (const name of ["slideId", "slide", "slideGone", "scopes"]) store.on(name, showOpener);
  showOpener();
}

/** It says how far a report is that is being written, for whoever has closed the dialog meanwhile. */
function showOpener() {
  const opener = byId("reports-opener");
  const slide = store.get("slide");
  const run = slide && runs.get(slide.id);
  opener.hidden = !may("reports");
  opener.disabled = !slide || Boolean(store.get("slideGone"));
  opener.textContent = run?.isUnderWay ? `Reports (${run.written} of ${run.sections.length || "…"} sections)` : "Reports";
}

const pathOf = (slideId) => `/v1/slides/${slideId}/reports`;

/** The dialog about the chosen slide, until it is closed. */
function open() {
  const slide = store.get("slide");
  const dialog = byId("reports");
  const head = element("h2", { id: "reports-heading", text: `Reports about ${slide.filename}` });
  const body = element("div", { class: "reports-body" });
  const foot = element("div", { class: "dialog-buttons" });
  dialog.replaceChildren(head, body, foot);
  const view = { slide, dialog, body, foot };
  const run = runs.get(slide.id);
  if (run?.isUnderWay) showRun(view, run);
  else showList(view);
  dialog.showModal();
}

const closer = ({ dialog }) => button("Close", () => dialog.close());
const back = (view) => button("All reports", () => showList(view));

function put(view, elements, ...buttons) {
  view.body.replaceChildren(...elements);
  view.foot.replaceChildren(...buttons, closer(view));
}

async function showList(view, says = "") {
  const list = element("ul", { class: "report-list", "aria-label": "Reports, newest first" });
  const words = element("p", { class: "small", role: "status", text: "Reading the list …" });
  const problem = element("p", { class: "problem", role: "alert", text: says });
  put(view, [problem, list, words, newReport(view)]);
  try {
    const { data } = await api.get(pathOf(view.slide.id));
    list.replaceChildren(...data.map((entry) => entryRow(view, entry)));
    words.textContent = data.length ? "" : "There are none yet.";
  } catch (error) {
    words.textContent = error.detail ?? String(error);
  }
}

/** The form, or why there is none. */
function newReport(view) {
  if (view.slide.status !== "ready") return element("p", { class: "small", text: "A report can be written when the slide is ready." });
  const order = (body) => {
    const run = new ReportRun(view.slide.id, body);
    runs.set(view.slide.id, run);
    run.addEventListener("change", showOpener);
    showOpener();
    showRun(view, run);
  };
  return element("details", { class: "new-report" }, element("summary", { text: "Write a new one" }), reportForm(store.get("model"), order));
}

function entryRow(view, entry) {
  const { number, title, model, created_at: createdAt, error } = entry;
  const name = `Report ${number}`;
  const read = error
    ? element("span", { class: "mark", text: `${name}: ${error.detail}` })
    : button(`${number}. ${title}`, () => readOne(view, number), { class: "quiet report-name" });
  const facts = !error && element("span", { class: "small" }, `${model}, `, momentElement(createdAt));
  const remove = button("×", () => askAndDelete(view, number), { class: "remove", "aria-label": `Delete report ${number}` });
  return element("li", { dataset: { report: number } }, read, facts, remove);
}

async function readOne(view, number) {
  try {
    showReport(view, await api.get(`${pathOf(view.slide.id)}/${number}`));
  } catch (error) {
    showList(view, error.detail ?? String(error));
  }
}

function showReport(view, report) {
  put(view, reportElements(report), back(view));
  view.dialog.scrollTop = 0;
  view.foot.firstChild.focus({ preventScroll: true });
}

async function askAndDelete(view, number) {
  if (!(await confirmed(`Delete report ${number}?`, "It cannot be had back. Conversations that it began stay.", "Delete the report"))) return;
  await api.json("DELETE", `${pathOf(view.slide.id)}/${number}`).then(() => showList(view), (error) => showList(view, error.detail ?? String(error)));
}

/** The report while it is written; when it is complete it is read, unless somebody looks at something else by then. */
function showRun(view, run) {
  const status = element("p", { role: "status", class: "run-status" });
  const bar = element("progress", { "aria-label": "Sections that are written" });
  const list = element("ol", { class: "run-sections" });
  const notice = element("p", { class: "report-notice" });
  const stop = button("Stop", () => run.stop(), { class: "danger", id: "stop-report" });
  put(view, [status, bar, notice, list], stop);
  stop.focus();
  const refresh = () => {
    if (!list.isConnected) return run.removeEventListener("change", refresh);
    if (run.state === "done") return showReport(view, run.report);
    if (!run.isUnderWay) return showList(view, endWords(run));
    status.textContent = progressWords(run);
    bar.max = run.sections.length || 1;
    bar.value = run.written;
    notice.hidden = !run.notice;
    notice.textContent = run.notice;
    list.replaceChildren(...run.sections.map(runSection));
  };
  run.addEventListener("change", refresh);
  refresh();
}

function progressWords(run) {
  if (!run.sections.length) return "The model is asked …";
  const current = run.sections.find(({ isComplete }) => !isComplete);
  return current ? `Section ${run.written + 1} of ${run.sections.length}: ${current.heading}` : "All sections are written; the report is being kept.";
}

const endWords = (run) =>
  run.state === "stopped" ? "Stopped; nothing was kept." : `The report was not written to its end, and nothing was kept. ${run.detail}`;

function runSection({ heading, text, isComplete }) {
  return element(
    "li",
    { class: isComplete ? "complete" : null },
    element("h3", { text: heading }),
    element("p", { class: "answer-text", text }),
  );
}
