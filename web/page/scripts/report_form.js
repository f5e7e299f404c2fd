/** The form that a report is ordered with: the server's own template, sections of one's own, or a file of them. */

import { button, element } from "./elements.js";
import { bodyOf, flawOf, MOST_HEADING_CHARS, MOST_SECTIONS, MOST_TITLE_CHARS, templateIn } from "./report_template.js";

/** What was typed last, for whoever comes back to the form; gone with the page. */
const typed = { title: "", sections: null };

/** The form; `order(body)` is called with what the API takes. `model` is that of the page. */
export function reportForm(model, order) {
  const title = element("input", { id: "report-title", maxlength: MOST_TITLE_CHARS, placeholder: "Draft report", autocomplete: "off" });
  const rows = element("ol", { class: "template-sections" });
  const says = element("p", { class: "problem", role: "alert" });
  const parts = { title, rows, says };
  title.value = typed.title;
  title.addEventListener("input", () => {
    typed.title = title.value;
  });
  const own = element("div", { class: "own-template" }, rows, ownButtons(parts));
  const form = element(
    "form",
    { class: "report-form", novalidate: true, "aria-label": "A new report" },
    element("label", { for: title.id, text: "Title" }),
    title,
    templateChoice(parts, own),
    own,
    says,
    element("p", { class: "small", text: `Each question is put to ${model.title} by itself. Nothing is kept unless every section gets its answer.` }),
    element("div", { class: "dialog-buttons" }, element("button", { type: "submit", id: "write-report", text: "Write the report" })),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    says.textContent = typed.sections ? (flawOf(typed.sections) ?? "") : "";
    if (!says.textContent) order(bodyOf(typed, model.id));
  });
  fill(parts);
  return form;
}

/** Whose questions: the server's, or one's own. */
function templateChoice(parts, own) {
  const choice = (value, words) => {
    const input = element("input", { type: "radio", name: "template", value, onchange: () => choose(value === "own") });
    input.checked = (value === "own") === (typed.sections !== null);
    return element("label", { class: "scope-choice" }, input, words);
  };
  const choose = (isOwn) => {
    typed.sections = isOwn ? [emptySection()] : null;
    own.hidden = !isOwn;
    fill(parts);
  };
  own.hidden = typed.sections === null;
  return element(
    "fieldset",
    { class: "template-choice" },
    element("legend", { text: "Template" }),
    choice("server", "the server's own"),
    choice("own", "sections of your own"),
  );
}

const emptySection = () => ({ heading: "", question: "", choices: [] });

function ownButtons(parts) {
  const file = element("input", { type: "file", accept: "application/json,.json", hidden: true, "aria-label": "File of a template" });
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    file.value = "";
    if (chosen) take(parts, await chosen.text());
  });
  const add = () => {
    if (typed.sections.length >= MOST_SECTIONS) {
      parts.says.textContent = `A report has at most ${MOST_SECTIONS} sections.`;
      return;
    }
    typed.sections.push(emptySection());
    fill(parts);
    parts.rows.lastElementChild.querySelector("input").focus();
  };
  return element(
    "p",
    { class: "field-row" },
    button("Add a section", add, { class: "quiet" }),
    button("Take them from a file…", () => file.click(), { class: "quiet", title: "JSON, as eyepiece report --template takes it" }),
    file,
  );
}

function take(parts, text) {
  try {
    Object.assign(typed, templateIn(text));
    parts.says.textContent = "";
    parts.title.value = typed.title;
    fill(parts);
  } catch (error) {
    parts.says.textContent = error.message;
  }
}

function fill(parts) {
  const sections = typed.sections ?? [];
  parts.rows.replaceChildren(...sections.map((section, index) => sectionRow(section, index, parts)));
}

function sectionRow(section, index, parts) {
  const heading = element("input", { maxlength: MOST_HEADING_CHARS, "aria-label": `Heading of section ${index + 1}`, placeholder: "Heading", autocomplete: "off" });
  const question = element("textarea", { rows: 2, "aria-label": `Question of section ${index + 1}`, placeholder: "Question" });
  for (const [name, field] of [["heading", heading], ["question", question]]) {
    field.value = section[name];
    field.addEventListener("input", () => {
      section[name] = field.value;
    });
  }
  const strike = () => {
    typed.sections.splice(index, 1);
    fill(parts);
    parts.rows.parentElement.querySelector("p button").focus();
  };
  const remove = button("Take out", strike, { class: "quiet", "aria-label": `Take section ${index + 1} out` });
  const choices = section.choices.length > 0 && element("span", { class: "small", text: `The answer is one of: ${section.choices.join(", ")}.` });
  return element("li", {}, heading, question, element("div", { class: "sentence-foot" }, choices, remove));
}
