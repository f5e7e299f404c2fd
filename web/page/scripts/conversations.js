/** Earlier conversations about the chosen slide: found again, gone on with, deleted. */

import { confirmed } from "./confirm.js";
import { byId, button, element } from "./elements.js";
import { store } from "./store.js";

const listening = new WeakSet();

export function startConversations() {
  byId("new-conversation").addEventListener("click", () => {
    store.get("thread")?.startAnew();
    byId("question").focus();
  });
  store.on("thread", (thread) => {
    if (thread && !listening.has(thread)) {
      listening.add(thread);
      thread.addEventListener("change", show);
    }
    show();
  });
}

let shown = "";

function show() {
  const thread = store.get("thread");
  const known = thread?.conversations ?? [];
  byId("new-conversation").disabled = !thread?.conversationId;
  const key = JSON.stringify([known, thread?.conversationId]);
  if (key === shown) return; // whoever is choosing keeps the list open
  shown = key;
  byId("conversations").replaceChildren(...(known.length ? [choice(thread), removal(thread)] : []));
}

function choice(thread) {
  const options = thread.conversations.map(({ id, title, turns }) =>
    element("option", { value: id, text: `${title ?? "not readable"} (${turns})`, disabled: !title }),
  );
  const select = element(
    "select",
    { "aria-label": "Conversation about this slide", onchange: () => open(thread, select.value) },
    element("option", { value: "", text: "New conversation" }),
    options,
  );
  select.value = thread.conversationId ?? "";
  return select;
}

function open(thread, id) {
  if (id) thread.open(id).catch((error) => says(error.detail ?? String(error)));
  else thread.startAnew();
}

function removal(thread) {
  const remove = button("Delete", () => askAndDelete(thread), { class: "quiet", disabled: !thread.conversationId });
  remove.setAttribute("aria-label", "Delete this conversation");
  return remove;
}

async function askAndDelete(thread) {
  const id = thread.conversationId;
  const text = "Its questions and answers go, and the verdicts on them. This cannot be undone.";
  if (!(await confirmed("Delete this conversation?", text, "Delete it"))) return;
  await thread.delete(id).catch((error) => says(error.detail ?? String(error)));
}

function says(words) {
  byId("ask-says").replaceChildren(element("p", { text: words }));
}
