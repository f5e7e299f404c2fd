/**
 * The evidence of an answer: what leaving out parts of the tissue changes of it, asked for when somebody wants to see it.
 *
 * `state` is `running`, `done` or `broken`. The cells are those of `evidence`, then of `done`; drops are shown once all are
 * there, because only then is known whether any of them stands out from the control.
 */

import { api, Problem } from "./api.js";
import { standingOut } from "./evidence_cells.js";

const LAST_EVENTS = ["done", "error"];
const kept = new WeakMap();

export class Evidence extends EventTarget {
  #stopping = new AbortController();
  state = "running";
  progress = null;
  /** The data of `evidence`, then of `done`. */
  found = null;
  problem = null;
  /** Index of the chosen one of `strongest`; null for none. */
  chosen = null;
  /** That of one of its cells, divided again; null for the coarse one. */
  refined = null;

  constructor(answer, parent = null) {
    super();
    Object.assign(this, { answer, parent });
  }

  /** The cells that stand out, strongest first. */
  get strongest() {
    return this.state === "done" ? standingOut(this.found) : [];
  }

  get cells() {
    return this.found?.cells ?? [];
  }

  note(fields) {
    Object.assign(this, fields);
    this.dispatchEvent(new Event("change"));
  }

  stop() {
    this.#stopping.abort();
  }

  /** Look at one of its cells in finer ones. */
  refine(cell) {
    this.refined?.stop();
    const finer = new Evidence(this.answer, cell);
    this.note({ refined: finer });
    finer.run();
    return finer;
  }

  async run() {
    this.note({ state: "running", problem: null, progress: null });
    const { conversationId, turn, slide } = this.answer;
    const body = { conversation_id: conversationId, turn, cell: this.parent?.cell ?? null };
    try {
      const options = { body, signal: this.#stopping.signal, lastNames: LAST_EVENTS };
      for await (const { name, data } of api.events("POST", `/v1/slides/${slide.id}/evidence`, options)) {
        if (name === "evidence") this.note({ found: data });
        else if (name === "progress") this.note({ progress: data });
        else if (name === "done") this.note({ state: "done", found: data, progress: null });
        else if (name === "error") throw new Problem(200, data.code, data.detail);
      }
    } catch (error) {
      if (error.name === "AbortError") return this.note({ state: "broken", problem: { detail: "Stopped." } });
      this.note({ state: "broken", problem: { code: error.code, detail: error.detail ?? String(error) } });
    }
    this.dispatchEvent(new Event("settled"));
  }
}

/** The evidence of an answer, asked for at the first call. */
export function evidenceOf(answer) {
  if (!kept.has(answer)) {
    const evidence = new Evidence(answer);
    kept.set(answer, evidence);
    evidence.run();
  }
  return kept.get(answer);
}
