/** The list of slides, newest first, with how each stands. */

import { byId, button, element, momentElement } from "./elements.js";
import { SEARCHES } from "./said_of_slides.js";
import { chooseSlide, deleteSlide, hasOlderSlides, loadOlderSlides, loadSlides } from "./slides.js";
import { confirmed } from "./confirm.js";
import { store } from "./store.js";
import { thumbnail } from "./thumbnails.js";
import { showView } from "./views.js";

const SEARCH_AFTER_MS = 250;
/** What people read for each status of the API. */
export const STATUS_WORDS = { queued: "waiting", encoding: "being prepared", ready: "ready", failed: "failed" };

export function startSlideList() {
  const list = byId("slide-list");
  const rows = new Map();
  store.on("slides", () => show(list, rows));
  store.on("slideId", () => show(list, rows));
  byId("more-slides").addEventListener("click", () => loadOlderSlides().catch(() => {}));
  searchAsTyped(byId("search-by"), byId("slide-search"));
}

/** Look for slides of which this is said, as if it had been typed. */
export function searchBy(query, text) {
  byId("search-by").value = query;
  byId("slide-search").value = text;
  sayHowToSearch();
  showView("slides");
  search();
}

let timer = null;

function searchAsTyped(by, field) {
  by.replaceChildren(...SEARCHES.map(({ query, words }) => element("option", { value: query, text: `by ${words}` })));
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, SEARCH_AFTER_MS);
  });
  by.addEventListener("change", () => {
    sayHowToSearch();
    search();
  });
  sayHowToSearch();
}

function search() {
  clearTimeout(timer);
  loadSlides({ query: byId("search-by").value, text: byId("slide-search").value.trim() }).catch(() => {});
}

function sayHowToSearch() {
  const { words, isWhole } = SEARCHES.find(({ query }) => query === byId("search-by").value);
  byId("slide-search").placeholder = isWhole ? `The whole ${words}` : `Part of the ${words}`;
}

/** Rows stay the same elements, so that the focus stays where it is while slides are encoded. */
function show(list, rows) {
  const slides = store.get("slides");
  const shown = slides.map((slide) => {
    if (!rows.has(slide.id)) rows.set(slide.id, row(slide));
    refresh(rows.get(slide.id), slide);
    return rows.get(slide.id);
  });
  for (const [index, item] of shown.entries()) {
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  }
  while (list.children.length > shown.length) list.lastChild.remove();
  list.classList.toggle("empty", shown.length === 0);
  list.classList.toggle("searched", byId("slide-search").value.trim() !== "");
  byId("more-slides").hidden = !hasOlderSlides();
}

function row(slide) {
  const choose = button("", () => {
    chooseSlide(slide.id).catch(() => {});
    showView("viewer");
  }, { class: "slide-row" });
  choose.append(
    thumbnail(slide.id),
    element(
      "span",
      { class: "slide-words" },
      element("span", { class: "slide-name", text: slide.filename, title: slide.filename }),
      element("span", { class: "slide-case" }),
      element("span", { class: "slide-facts" }, element("span", { class: "status" }), momentElement(slide.created_at)),
    ),
  );
  const remove = button("×", () => askAndDelete(slide), { class: "remove", "aria-label": `Delete ${slide.filename}` });
  return element("li", { dataset: { slide: slide.id } }, choose, remove);
}

function refresh(item, slide) {
  const choose = item.firstChild;
  const isChosen = store.get("slideId") === slide.id;
  if (isChosen) choose.setAttribute("aria-current", "true");
  else choose.removeAttribute("aria-current");
  item.querySelector(".slide-case").textContent = [slide.case, slide.stain].filter(Boolean).join(", ");
  const status = item.querySelector(".status");
  status.dataset.status = slide.status;
  status.textContent = progressWords(slide);
}

/** How a slide stands, in a few words. */
export function progressWords({ status, progress }) {
  const share = progress?.total ? ` ${Math.round((100 * progress.done) / progress.total)} %` : "";
  return status === "encoding" ? `${STATUS_WORDS.encoding}${share}` : STATUS_WORDS[status];
}

async function askAndDelete(slide) {
  const text = "Its answers, conversations and verdicts go with it. This cannot be undone.";
  if (await confirmed(`Delete ${slide.filename}?`, text, "Delete the slide")) await deleteSlide(slide.id).catch(() => {});
}
