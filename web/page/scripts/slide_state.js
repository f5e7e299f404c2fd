/** What is to be known of the chosen slide: how far it is, why it failed and what helps, what is doubtful about it. */

import { doubtElements } from "./doubts.js";
import { byId, button, element } from "./elements.js";
import { encodeSlide } from "./slides.js";
import { STATUS_WORDS, progressWords } from "./slide_list.js";
import { store } from "./store.js";

/** Failures that a number mends. */
const MISSING_RESOLUTION = "missing_mpp";

export function startSlideState() {
  const show = () => {
    showName();
    showState();
    showDoubts();
  };
  for (const name of ["slideId", "slide", "slideGone"]) store.on(name, show);
  show();
}

function showName() {
  const slide = store.get("slide");
  byId("current-slide").replaceChildren(
    slide
      ? element("span", {}, element("span", { class: "slide-name", text: slide.filename, title: slide.filename }), " ", statusElement(slide))
      : element("span", { class: "small", text: "No slide chosen" }),
  );
  document.title = slide ? `${slide.filename} – Eyepiece` : "Eyepiece";
}

function statusElement(slide) {
  const gone = store.get("slideGone");
  const words = gone ? "gone" : (progressWords(slide) ?? STATUS_WORDS.queued);
  return element("span", { class: "status", dataset: { status: gone ? "failed" : slide.status }, text: words });
}

let shown = "";

function showState() {
  const panel = byId("slide-state");
  const slide = store.get("slide");
  const gone = store.get("slideGone");
  const key = JSON.stringify([store.get("slideId"), slide?.id, slide?.status, slide?.error, gone]);
  if (key === shown && slide?.status !== "encoding") return; // whoever types a resolution keeps the field
  shown = key;
  panel.replaceChildren(...content(slide, gone));
  panel.hidden = !panel.childElementCount;
}

function content(slide, gone) {
  if (gone) {
    return box(
      "This slide is gone",
      element("p", { text: gone.detail }),
      element("p", { text: "What was answered stays readable until you leave it; nothing new can be asked." }),
    );
  }
  if (!store.get("slideId")) {
    return box("No slide chosen", element("p", { text: "Choose a slide from the list, or drop one onto this page." }));
  }
  if (!slide || slide.status === "ready") return [];
  if (slide.status === "failed") return failure(slide);
  return progress(slide);
}

function box(heading, ...children) {
  return [element("div", { class: "state-box" }, element("h2", { text: heading }), ...children)];
}

function progress(slide) {
  const { stage, done, total } = slide.progress ?? {};
  const words = { tile: "looking for tissue", encode_tiles: "encoding tiles", encode_slide: "encoding the slide" };
  const bar = element("progress", { "aria-label": "Progress", ...(total ? { max: total, value: done } : {}) });
  const text = stage ? `${words[stage] ?? stage.replaceAll("_", " ")}: ${done} of ${total}` : "waits for a worker";
  return box(
    slide.status === "queued" ? "Waiting to be prepared" : "Being prepared",
    bar,
    element("p", { text }),
    element("p", { class: "small", text: "You can look at the slide meanwhile. Questions can be asked when it is ready." }),
  );
}

function failure(slide) {
  const error = slide.error ?? { code: "unknown", detail: "Nobody knows why." };
  if (error.code === MISSING_RESOLUTION) {
    const words = "The file does not say how large a pixel of it is. Say so, and the slide is prepared.";
    return box("This slide cannot be asked about yet", element("p", { text: words }), resolutionForm(slide));
  }
  return box("This slide cannot be asked about", element("p", { text: error.detail }), againButton(slide));
}

function resolutionForm(slide) {
  const field = element("input", {
    id: "mpp",
    type: "number",
    min: 0.05,
    max: 4,
    step: "any",
    required: true,
    placeholder: "0.25",
    "aria-describedby": "mpp-says",
  });
  const says = element("p", {
    id: "mpp-says",
    class: "small",
    text: "About 0.25 for a scan at 40×, 0.5 at 20×. A wrong value makes wrong answers: take it from the scanner.",
  });
  const form = element(
    "form",
    { class: "remedy", novalidate: true },
    element("label", { for: "mpp", text: "Resolution in µm per pixel" }),
    element("span", { class: "field-row" }, field, element("button", { type: "submit", class: "primary", text: "Prepare the slide" })),
    says,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const mpp = Number(field.value);
    if (!(mpp >= 0.05 && mpp <= 4)) {
      says.textContent = "Give a number from 0.05 to 4, in µm per pixel.";
      return field.focus();
    }
    await encodeSlide(slide.id, { mpp }).catch((error) => {
      says.textContent = error.detail ?? String(error);
    });
  });
  return form;
}

function againButton(slide) {
  const says = element("p", { class: "small" });
  const again = button("Try again", () =>
    encodeSlide(slide.id).catch((error) => {
      says.textContent = error.detail ?? String(error);
    }),
  );
  return element("div", { class: "remedy" }, again, says);
}

function showDoubts() {
  const slide = store.get("slide");
  const isThere = slide && !store.get("slideGone");
  byId("slide-doubts").replaceChildren(...doubtElements(isThere ? (slide.warnings ?? []) : []));
}
