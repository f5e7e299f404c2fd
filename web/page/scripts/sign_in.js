/** Signing in with an API key, when the server asks for one. The key is never stored. */

import { api } from "./api.js";
import { button, byId, element } from "./elements.js";

export function startSignIn() {
  const dialog = byId("sign-in");
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  api.askForKey = (problem) => askForKey(dialog, problem);
  const leave = button("Sign out", () => leaveThePage(), { class: "quiet", hidden: true });
  byId("menu").append(leave);
  api.addEventListener("signed-in", () => {
    leave.hidden = false;
  });
}

/** Nothing of whoever was signed in may stay on the screen: the page begins again. */
function leaveThePage() {
  api.signOut();
  window.location.reload();
}

function askForKey(dialog, problem) {
  const wasSignedIn = api.signedIn;
  return new Promise((resolve) => {
    const field = element("input", {
      id: "key",
      type: "password",
      autocomplete: "off",
      spellcheck: "false",
      required: true,
      "aria-describedby": "key-says",
    });
    const form = element(
      "form",
      { method: "dialog", novalidate: true },
      element("h2", { id: "sign-in-heading", text: wasSignedIn ? "Sign in again" : "Sign in" }),
      element("p", {
        id: "key-says",
        text: wasSignedIn
          ? "The server does not take this key any more: it has expired or was withdrawn. Nothing on this page is lost."
          : "This server asks for an API key. Whoever runs it makes one with eyepiece keys create.",
      }),
      element("label", { for: "key", text: "API key" }),
      field,
      element("p", { class: "small", text: "The key stays in this page's memory and is gone when you close it." }),
      element("div", { class: "dialog-buttons" }, element("button", { type: "submit", class: "primary", text: "Sign in" })),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const key = field.value.trim();
      if (!key) return field.focus();
      dialog.close();
      api.signIn(key);
      resolve();
    });
    if (problem.code !== "unauthorized") form.prepend(element("p", { text: problem.detail }));
    dialog.replaceChildren(form);
    if (!dialog.open) dialog.showModal();
    field.focus();
  });
}
