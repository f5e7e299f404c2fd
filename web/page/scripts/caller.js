/** What the key allows, so that nothing is offered that the server would refuse. */

import { api } from "./api.js";
import { store } from "./store.js";

/** Ask what the key allows; before that, and while nobody knows, nothing but looking is offered. */
export async function loadCaller() {
  store.set("scopes", (await api.get("/v1/caller")).scopes);
}

/** Whoever signs in may be allowed something else. */
export function startCaller() {
  const again = () => loadCaller().catch(() => {});
  api.addEventListener("signed-in", again);
  store.on("reachable", (reachable) => reachable && again());
}

/** Whether the key has this scope. */
export const may = (scope) => store.get("scopes").includes(scope);
