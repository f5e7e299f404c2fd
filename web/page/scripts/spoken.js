/** Answers for those who hear the page: a sentence at a time, when it is complete, and politely. */

import { byId, element } from "./elements.js";
import { store } from "./store.js";

const SENTENCE = /[^.!?]*[.!?]+(?=\s|$)/g;
const ENDS = { stopped: "Stopped.", broken: "The answer broke off.", refused: "Not answered." };

export function startSpoken() {
  const listening = new WeakSet();
  const told = new WeakMap();
  store.on("thread", (thread) => {
    if (!thread || listening.has(thread)) return;
    listening.add(thread);
    thread.addEventListener("change", () => {
      const answer = thread.answers.at(-1);
      if (answer && thread === store.get("thread")) tell(answer, told);
    });
  });
}

function tell(answer, told) {
  if (!told.has(answer)) told.set(answer, answer.isUnderWay ? { chars: 0, ended: false } : { chars: answer.text.length, ended: true });
  const state = told.get(answer);
  if (answer.text.length < state.chars) state.chars = 0; // it was asked again
  const rest = answer.text.slice(state.chars);
  const complete = answer.isUnderWay ? (rest.match(SENTENCE)?.join("") ?? "") : rest;
  state.chars += complete.length;
  say(complete);
  if (answer.isUnderWay) state.ended = false;
  else if (!state.ended) {
    state.ended = true;
    if (ENDS[answer.state]) say(`${ENDS[answer.state]} ${answer.problem?.detail ?? ""}`);
  }
}

/** Added, not replaced: a screen reader reads what is added. */
function say(words) {
  const place = byId("spoken");
  if (!words.trim()) return;
  while (place.childElementCount > 20) place.firstChild.remove();
  place.append(element("p", { text: words.trim() }));
}
