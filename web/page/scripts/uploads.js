/** Slides come in: dropped onto the page, or chosen. Each shows how much of it is sent. */

import { api } from "./api.js";
import { byId, button, element } from "./elements.js";
import { chooseSlide, noteSlide } from "./slides.js";
import { showView } from "./views.js";

export function startUploads() {
  const input = byId("upload-files");
  byId("upload").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    uploadAll(slidesIn([...input.files].map((file) => ({ file, name: file.name }))));
    input.value = "";
  });
  acceptDrops(byId("drop"));
}

function acceptDrops(veil) {
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  window.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true;
  });
  window.addEventListener("drop", async (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    veil.hidden = true;
    // What was dropped must be taken before the first wait: it is gone after the event.
    const folders = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter((it) => it?.isDirectory);
    const names = new Set(folders.map((folder) => folder.name));
    const files = [...event.dataTransfer.files].filter((file) => !names.has(file.name));
    for (const folder of folders) uploadAll([await filesBelow(folder)]);
    uploadAll(slidesIn(files.map((file) => ({ file, name: file.name }))));
  });
}

/** A file is a slide; several DICOM files that come together are one, and so are MIRAX files with the data beside. */
function slidesIn(files) {
  const isPart = ({ name }) => /\.(dcm|mrxs|dat|ini)$/i.test(name);
  const parts = files.filter(isPart);
  const whole = files.filter((file) => !isPart(file)).map((file) => [file]);
  return parts.length ? [parts, ...whole] : whole;
}

async function filesBelow(folder, path = "") {
  const found = [];
  const reader = folder.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return found;
    for (const entry of entries) {
      const name = `${path}${entry.name}`;
      if (entry.isDirectory) found.push(...(await filesBelow(entry, `${name}/`)));
      else found.push({ ...(await fileOf(entry)), name });
    }
  }
}

async function fileOf(entry) {
  const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
  return { file, name: file.name };
}

/** One after the other: each gets the whole line. */
async function uploadAll(slides) {
  for (const files of slides) if (files.length) await upload(files);
}

async function upload(files) {
  const row = uploadRow(files);
  byId("uploads").append(row.item);
  for (;;) {
    const stopping = new AbortController();
    row.begin(() => stopping.abort());
    try {
      const slide = await api.upload(files, row.progress, stopping.signal);
      row.item.remove();
      noteSlide(slide);
      showView("viewer");
      await chooseSlide(slide.id).catch(() => {});
      return;
    } catch (error) {
      if (error.name === "AbortError") return row.item.remove();
      if (!(await row.failed(error.detail ?? String(error)))) return row.item.remove();
    }
  }
}

function uploadRow(files) {
  const name = files.find(({ name }) => /\.mrxs$/i.test(name))?.name ?? files[0].name;
  const words = element("span", { class: "upload-words", role: "status" });
  const bar = element("progress", { max: 1, value: 0, "aria-label": `Upload of ${name}` });
  const buttons = element("span", { class: "upload-buttons" });
  const count = files.length > 1 ? ` and ${files.length - 1} more` : "";
  const item = element("li", {}, element("span", { class: "slide-name", text: `${name}${count}` }), words, bar, buttons);
  return {
    item,
    begin(stop) {
      words.textContent = "being sent";
      item.classList.remove("has-failed");
      bar.hidden = false;
      buttons.replaceChildren(button("Cancel", stop, { class: "quiet" }));
    },
    progress(share) {
      bar.value = share;
      words.textContent = share < 1 ? `being sent, ${Math.round(100 * share)} %` : "being looked at";
    },
    /** Whether it is to be tried again. */
    failed(detail) {
      words.textContent = detail;
      item.classList.add("has-failed");
      bar.hidden = true;
      return new Promise((resolve) => {
        buttons.replaceChildren(
          button("Try again", () => resolve(true)),
          button("Dismiss", () => resolve(false), { class: "quiet" }),
        );
      });
    },
  };
}
