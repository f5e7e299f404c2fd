/** Tools of the slide as buttons. One of them can be reached with Tab, the others from there with arrows. */

import { runCommand } from "./commands.js";
import { button, byId, element } from "./elements.js";

/** A group of the toolbar; `label` names it for screen readers. */
export function toolGroup(label, ...buttons) {
  const group = element("div", { class: "tool-group", role: "group", "aria-label": label }, buttons);
  byId("tools").append(group);
  keepOneStop();
  return group;
}

/** A button that runs a command. With `isSwitch` it is on or off, as `setOn` says. */
export function tool(words, { key, command, title, isSwitch = false, label }) {
  const made = button("", () => runCommand(command), {
    class: "tool",
    title: key ? `${title} (${key})` : title,
    dataset: { command },
    ...(label ? { "aria-label": label } : {}),
    ...(key?.length === 1 ? { "aria-keyshortcuts": key } : {}),
    ...(isSwitch ? { "aria-pressed": "false" } : {}),
  });
  made.append(element("span", { text: words }));
  if (key && isSwitch) made.append(" ", element("kbd", { "aria-hidden": "true", text: key }));
  return made;
}

/** Show whether a tool is on. */
export function setOn(command, isOn) {
  byId("tools").querySelector(`[data-command="${command}"]`)?.setAttribute("aria-pressed", String(isOn));
}

/** Whether a tool can be used now; `title` says why not. */
export function setUsable(command, isUsable) {
  const found = byId("tools").querySelector(`[data-command="${command}"]`);
  if (found) found.disabled = !isUsable;
  keepOneStop();
}

export function startToolbar() {
  byId("tools").addEventListener("keydown", (event) => {
    const usable = buttons().filter((it) => !it.disabled);
    const at = usable.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: usable.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    usable[(to + usable.length) % usable.length].focus();
  });
  byId("tools").addEventListener("focusin", ({ target }) => keepOneStop(target));
}

const buttons = () => [...byId("tools").querySelectorAll("button")];

function keepOneStop(focused = null) {
  const all = buttons();
  const stop = focused ?? all.find((it) => it.tabIndex === 0 && !it.disabled) ?? all.find((it) => !it.disabled);
  for (const it of all) it.tabIndex = it === stop ? 0 : -1;
}
