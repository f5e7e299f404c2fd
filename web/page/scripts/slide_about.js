/** What is said of the chosen slide, in a row above it: read, searched by, and changed where the key allows it. */

import { api } from "./api.js";
import { may } from "./caller.js";
import { button, byId, element } from "./elements.js";
import { changesOf, LABELS_WORDS, SAID_FIELDS, saidOf } from "./said_of_slides.js";
import { searchBy } from "./slide_list.js";
import { noteSlide } from "./slides.js";
import { store } from "./store.js";

/** What the API takes; a longer text would be refused. */
const MOST_CHARS = 128;
const MOST_LABELS = 32;

export function startSlideAbout() {
  for (const name of ["slideId", "slide", "slideGone", "scopes"]) store.on(name, show);
  show();
}

let shown = "";

/** Made anew only when it says something else: whoever has the focus on it keeps it while the slide is encoded. */
function show() {
  const row = byId("slide-about");
  const slide = store.get("slideGone") ? null : store.get("slide");
  const canEdit = may("slides:write");
  const key = JSON.stringify([slide && [slide.id, saidOf(slide)], canEdit]);
  row.hidden = slide === null;
  if (key === shown) return;
  shown = key;
  row.replaceChildren(...(slide ? content(slide, canEdit) : []));
}

function content(slide, canEdit) {
  const said = saidOf(slide);
  const words = said.length
    ? element("dl", { class: "said" }, said.map(fieldElement))
    : element("p", { class: "small", text: "Nothing is said of this slide." });
  const edit = canEdit && button(said.length ? "Edit" : "Say something", () => open(slide), { id: "edit-about", class: "quiet" });
  return [words, edit].filter(Boolean);
}

function fieldElement({ name, words, values }) {
  const search = (value) =>
    button(value, () => searchBy(name, value), { class: "place", title: `Find slides with the same ${words.toLowerCase()}` });
  return element("div", {}, element("dt", { text: words }), values.map((value) => element("dd", {}, search(value))));
}

function open(slide) {
  const dialog = byId("about");
  const says = element("p", { class: "problem", role: "alert" });
  const fields = [
    ...SAID_FIELDS.map(({ name, words, hint }) => field(name, words, hint, slide[name] ?? "", MOST_CHARS)),
    field("labels", LABELS_WORDS, "Words of your own, with commas between them.", (slide.labels ?? []).join(", "), MOST_CHARS * MOST_LABELS),
  ];
  const form = element(
    "form",
    { novalidate: true },
    element("h2", { id: "about-heading", text: `About ${slide.filename}` }),
    element("p", { class: "small", text: "Everybody who may read this slide reads this. What is left empty is said no more." }),
    fields,
    says,
    element("div", { class: "dialog-buttons" }, button("Cancel", () => dialog.close()), element("button", { type: "submit", text: "Keep" })),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    keep(slide, form, says, dialog);
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

function field(name, words, hint, value, maxlength) {
  const input = element("input", { id: `about-${name}`, name, maxlength, autocomplete: "off", spellcheck: "false", "aria-describedby": `about-${name}-hint` });
  input.value = value;
  return element(
    "div",
    { class: "about-field" },
    element("label", { for: input.id, text: words }),
    input,
    element("span", { id: `about-${name}-hint`, class: "small", text: hint }),
  );
}

async function keep(slide, form, says, dialog) {
  const changes = changesOf(slide, Object.fromEntries(new FormData(form)));
  const submit = form.querySelector("button[type=submit]");
  if (!Object.keys(changes).length) return dialog.close();
  submit.disabled = true;
  says.textContent = "";
  try {
    noteSlide(await api.json("PATCH", `/v1/slides/${slide.id}`, { body: changes }));
    dialog.close();
  } catch (error) {
    says.textContent = error.detail ?? String(error);
  } finally {
    submit.disabled = false;
  }
}
