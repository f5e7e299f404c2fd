/** The keys of the slide, the list of them, and the switch that turns those of a single character off. */

import { onCommand, runCommand } from "./commands.js";
import { button, byId, element } from "./elements.js";
import { commandOf, KEYS } from "./key_commands.js";
import { tool, toolGroup } from "./toolbar.js";

/** A preference of this browser; it says nothing about anybody. */
const KEPT_AS = "eyepiece.letters";
let letters = true;

export function startKeys() {
  letters = read() !== "off";
  toolGroup("Help", tool("Keys", { key: "?", command: "keys", title: "List of keys" }));
  onCommand("keys", showList);
  byId("canvas").addEventListener("keydown", (event) => {
    const meant = commandOf(event, letters);
    if (!meant) return;
    event.preventDefault();
    event.stopPropagation();
    runCommand(meant.command, meant.large);
  });
  // OpenSeadragon has an element of its own that would take the focus.
  byId("canvas").addEventListener("pointerdown", () => byId("canvas").focus({ preventScroll: true }));
}

function showList() {
  const dialog = byId("keys");
  const off = element("input", { type: "checkbox", id: "letters", onchange: () => choose(off.checked) });
  off.checked = letters;
  dialog.replaceChildren(
    element("h2", { id: "keys-heading", text: "Keys" }),
    element("p", { class: "small", text: "They work while the slide has the focus: click on it, or come to it with Tab." }),
    ...groups(),
    element("p", {}, element("label", { class: "check" }, off, " Keys of a single character (letters, digits, signs)")),
    element("div", { class: "dialog-buttons" }, button("Close", () => dialog.close())),
  );
  dialog.showModal();
}

function groups() {
  const names = [...new Set(KEYS.map(({ group }) => group))];
  return names.map((name) =>
    element(
      "section",
      { class: "key-group", "aria-label": name },
      element("h3", { text: name }),
      element(
        "dl",
        {},
        KEYS.filter(({ group }) => group === name).map(({ keys, says }) =>
          element("div", {}, element("dt", {}, keys.map((key) => element("kbd", { text: key }))), element("dd", { text: says })),
        ),
      ),
    ),
  );
}

function choose(areOn) {
  letters = areOn;
  try {
    localStorage.setItem(KEPT_AS, areOn ? "on" : "off");
  } catch {
    // A browser that keeps nothing: it holds until the page is left.
  }
}

function read() {
  try {
    return localStorage.getItem(KEPT_AS);
  } catch {
    return null;
  }
}
