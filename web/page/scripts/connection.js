/** Says when the server cannot be reached, tries again by itself, and tells the other parts when it is back. */

import { api } from "./api.js";
import { byId, button, element } from "./elements.js";
import { store } from "./store.js";

const WAITS_S = [1, 2, 4, 8, 15];

export function startConnection() {
  const line = byId("connection");
  let tries = 0;
  let timer = null;

  function tryAgain() {
    clearTimeout(timer);
    // Any answer says that the server is there; api.js tells us of it.
    api.request("GET", "/livez").catch(() => {});
  }

  api.addEventListener("lost", () => {
    store.set("reachable", false);
    const what = navigator.onLine
      ? "The server cannot be reached: it restarts, or the network is away."
      : "This computer has no network.";
    line.replaceChildren(
      element("span", { text: `${what} What you see stays; the page goes on by itself. ` }),
      button("Try now", tryAgain, { class: "quiet" }),
    );
    clearTimeout(timer);
    timer = setTimeout(tryAgain, 1000 * WAITS_S[Math.min(tries++, WAITS_S.length - 1)]);
  });
  api.addEventListener("reached", () => {
    if (store.get("reachable")) return;
    tries = 0;
    clearTimeout(timer);
    line.replaceChildren();
    store.set("reachable", true);
  });
  window.addEventListener("online", tryAgain);
}
