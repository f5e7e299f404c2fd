/** A report that is being written: its sections as they come, and how that ended. It goes on while it is not shown. */

import { api, Problem } from "./api.js";

const LAST_EVENTS = ["done", "error"];

/** Tells of every change by the event `change`. */
export class ReportRun extends EventTarget {
  #stopping = new AbortController();
  /** Under way, or `done`, `stopped`, `broken`. */
  state = "writing";
  title = "";
  notice = "";
  /** `{heading, text, isComplete}` in their order. */
  sections = [];
  /** The report as it is kept, once it is. */
  report = null;
  /** In the server's words, why there is none. */
  detail = "";

  constructor(slideId, body) {
    super();
    this.slideId = slideId;
    this.#write(body);
  }

  get isUnderWay() {
    return this.state === "writing";
  }

  /** How many sections are complete. */
  get written() {
    return this.sections.filter(({ isComplete }) => isComplete).length;
  }

  /** The server ends the model's work and keeps nothing. */
  stop() {
    this.#stopping.abort();
  }

  async #write(body) {
    try {
      const options = { body, signal: this.#stopping.signal, lastNames: LAST_EVENTS };
      const events = api.events("POST", `/v1/slides/${this.slideId}/reports`, options);
      for await (const { name, data } of events) this.#note(name, data);
    } catch (error) {
      this.state = error.name === "AbortError" ? "stopped" : "broken";
      this.detail = error.detail ?? String(error);
    }
    this.dispatchEvent(new Event("change"));
  }

  #note(name, data) {
    if (name === "report") {
      Object.assign(this, { title: data.title, notice: data.notice });
      this.sections = data.sections.map((heading) => ({ heading, text: "", isComplete: false }));
    } else if (name === "token") this.sections[data.section - 1].text += data.text;
    else if (name === "section") Object.assign(this.sections[data.section - 1], { text: data.answer, isComplete: true });
    else if (name === "done") Object.assign(this, { state: "done", report: data });
    else if (name === "error") throw new Problem(200, data.code, data.detail);
    this.dispatchEvent(new Event("change"));
  }
}
