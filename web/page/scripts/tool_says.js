/** A line over the slide that says what a tool does and found; screen readers are told when it has settled. */

import { byId, element } from "./elements.js";

const SETTLED_MS = 400;
let timer = null;

/** Say something until something else is said; nothing without words. `isProblem` marks a refusal. */
export function say(words = "", isProblem = false) {
  const line = byId("tool-words");
  line.textContent = words;
  line.classList.toggle("problem", isProblem);
  line.hidden = !words;
  clearTimeout(timer);
  timer = setTimeout(() => {
    byId("tool-spoken").textContent = words;
  }, SETTLED_MS);
}

export function startToolSays() {
  byId("instruments").before(
    element("p", { id: "tool-words", hidden: true, "aria-hidden": "true" }),
    element("p", { id: "tool-spoken", class: "hidden", role: "status" }),
  );
}
