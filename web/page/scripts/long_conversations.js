/** Warns before a question that would make a conversation longer than any that its model was trained on. */

import { byId, button, element } from "./elements.js";
import { store } from "./store.js";

export function startLongConversations() {
  const listening = new WeakSet();
  store.on("thread", (thread) => {
    if (thread && !listening.has(thread)) {
      listening.add(thread);
      thread.addEventListener("change", show);
    }
    show();
  });
  store.on("model", show);
}

function show() {
  const thread = store.get("thread");
  const trained = store.get("model")?.trained_turns ?? null;
  const next = (thread?.turns ?? 0) + 1;
  const isLong = trained !== null && next > trained;
  byId("long-conversation").replaceChildren(
    ...(isLong
      ? [
          element("p", {
            class: "doubt",
            text: `The next question is the ${next}th of this conversation; the model was trained on no more than ${trained}.`,
          }),
          button("Begin a new conversation", () => thread.startAnew()),
        ]
      : []),
  );
}
