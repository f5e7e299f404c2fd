/**
 * What the parts of the page know together. A part listens to what it shows, and sets what it decides; none calls
 * another to keep it up to date.
 */

/** What a question is about unless a region is chosen. */
export const WHOLE_SLIDE = Object.freeze({ kind: "slide" });

class Store {
  #values;
  #listeners = new Map();

  constructor(values) {
    this.#values = new Map(Object.entries(values));
  }

  get(name) {
    if (!this.#values.has(name)) throw new Error(`The page has no ${name}.`);
    return this.#values.get(name);
  }

  /** Set a value and tell whoever listens, unless it is the same as before. */
  set(name, value) {
    const before = this.get(name);
    if (before === value) return;
    this.#values.set(name, value);
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        listener(value, before);
      } catch (error) {
        reportError(error); // the others are told all the same
      }
    }
  }

  /** Call `listener(value, before)` after every change from now on. */
  on(name, listener) {
    this.get(name);
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener]);
  }
}

export const store = new Store({
  /** What the key allows (caller.js); empty while nobody knows. */
  scopes: [],
  /** All models of `GET /v1/models`, the default first. */
  models: [],
  /** The one that is asked; null before the first is known. */
  model: null,
  /** Slides as the API shows them, newest first, as far as they were loaded. */
  slides: [],
  /** The id of the chosen slide, which changes when another one is chosen; null for none. */
  slideId: null,
  /** The chosen slide as the API shows it; also changes with its status. */
  slide: null,
  /** `{code, detail}` once the chosen slide is not there any more. */
  slideGone: null,
  /** What the next question is about: WHOLE_SLIDE, or `{kind: "region", region_id, tiles, area_mm2, label}`. */
  scope: WHOLE_SLIDE,
  /** Where the tiles of the chosen slide lie that the model was given (places.js); null while nobody knows. */
  places: null,
  /** The regions of the chosen slide that this page knows (regions.js). */
  regions: [],
  /** The thread of the chosen slide (threads.js); null without one. */
  thread: null,
  /** Whether the server answers. */
  reachable: true,
});
