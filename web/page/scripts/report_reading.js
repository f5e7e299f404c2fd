/** A report as it is read: what it is, its sections with what is doubtful about each, whose it is, and its other forms. */

import { api } from "./api.js";
import { doubtElements } from "./doubts.js";
import { button, element, momentElement } from "./elements.js";

/** The forms to take along, and how their files end. The key goes in a header, so they are fetched and not linked. */
const FORMS = [
  { format: "pdf", words: "PDF", ending: "pdf" },
  { format: "fhir", words: "FHIR", ending: "fhir.json" },
  { format: "text", words: "Text", ending: "txt" },
];

/** What is shown of a report. */
export function reportElements(report) {
  const says = element("p", { class: "problem", role: "alert" });
  return [
    element("h3", { class: "report-title", text: report.title }),
    element("p", { class: "small" }, `Report ${report.number}, ${report.status}, `, momentElement(report.created_at)),
    element("p", { class: "report-notice", text: `A draft that nobody has read or signed. ${report.model.notice}` }),
    ...report.sections.map(sectionElement),
    element("p", { class: "small", text: `Model ${report.model.name}, encoder ${report.model.encoder_id}, weights ${report.model.weights_digest}.` }),
    element("p", { class: "report-forms" }, "Take it along as ", FORMS.map((form) => formButton(report, form, says))),
    says,
  ];
}

function sectionElement({ heading, question, answer, choices, warnings }) {
  return element(
    "section",
    { class: "report-section", "aria-label": heading },
    element("h4", { text: heading }),
    element("p", { class: "small", text: question }),
    ...doubtElements(warnings),
    element("p", { class: "answer-text", text: answer }),
    choices.length > 0 && element("p", { class: "small", text: choices.map(({ text, probability }) => `${text}: ${Math.round(100 * probability)} %`).join(", ") }),
  );
}

function formButton(report, { format, words, ending }, says) {
  const fetchIt = async () => {
    says.textContent = "";
    try {
      const content = await api.blob(`/v1/slides/${report.slide.id}/reports/${report.number}?format=${format}`);
      save(content, `report-${report.slide.id.slice(0, 12)}-${report.number}.${ending}`);
    } catch (error) {
      says.textContent = error.detail ?? String(error);
    }
  };
  return button(words, fetchIt, { dataset: { format } });
}

/** Under a name without the slide's file name, which may name a patient. */
function save(content, name) {
  const link = element("a", { download: name, href: URL.createObjectURL(content) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
