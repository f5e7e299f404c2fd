/** Text to the clipboard; where the browser does not allow that (a page without TLS), to a field to copy it from. */

import { button, byId, element } from "./elements.js";

const SAID_MS = 2000;

/** Copy, and say so on the button that was pressed. */
export async function copy(text, pressed) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    return showToCopy(text);
  }
  const words = pressed.textContent;
  pressed.textContent = "Copied";
  setTimeout(() => {
    pressed.textContent = words;
  }, SAID_MS);
}

function showToCopy(text) {
  const dialog = byId("confirm");
  const field = element("textarea", { readonly: true, rows: 14, "aria-label": "Text to copy" });
  field.value = text;
  dialog.replaceChildren(
    element("h2", { id: "confirm-heading", text: "Copy this text" }),
    field,
    element("div", { class: "dialog-buttons" }, button("Close", () => dialog.close())),
  );
  dialog.showModal();
  field.select();
}
