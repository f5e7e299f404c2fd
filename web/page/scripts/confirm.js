/** A question to the person before something is done that cannot be undone. */

import { button, byId, element } from "./elements.js";

/** Whether they said yes. */
export function confirmed(heading, text, yes) {
  const dialog = byId("confirm");
  return new Promise((resolve) => {
    const answer = (value) => () => {
      dialog.close();
      resolve(value);
    };
    const no = button("Cancel", answer(false));
    dialog.replaceChildren(
      element("h2", { id: "confirm-heading", text: heading }),
      element("p", { text }),
      element("div", { class: "dialog-buttons" }, no, button(yes, answer(true), { class: "danger" })),
    );
    dialog.oncancel = () => resolve(false);
    dialog.showModal();
    no.focus();
  });
}
