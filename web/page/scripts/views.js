/** On a narrow screen one part of the page is shown at a time. */

import { byId } from "./elements.js";

const NAMES = ["slides", "viewer", "answers"];

export function startViews() {
  const tabs = NAMES.map((name) => byId(`view-${name}`));
  for (const tab of tabs) tab.addEventListener("click", () => showView(tab.dataset.view));
  byId("views").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    showView(next.dataset.view);
    next.focus();
  });
  showView("viewer");
}

/** Show `slides`, `viewer` or `answers`; on a wide screen all are there already. */
export function showView(name) {
  document.body.dataset.view = name;
  for (const other of NAMES) {
    const tab = byId(`view-${other}`);
    tab.setAttribute("aria-selected", String(other === name));
    tab.tabIndex = other === name ? 0 : -1;
  }
}
