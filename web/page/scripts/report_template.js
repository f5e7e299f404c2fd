/** Templates of reports, as `eyepiece report --template` and the API take them; nothing here knows of the page. */

/** What the API takes. */
export const MOST_SECTIONS = 20;
export const MOST_HEADING_CHARS = 120;
export const MOST_TITLE_CHARS = 200;

/**
 * The template in a file's text: `{title, sections: [{heading, question, choices}]}`, title "" where it has none.
 * Throws an Error whose message people can read.
 */
export function templateIn(text) {
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    throw new Error("This file is no template: it is not JSON.");
  }
  const sections = read?.sections;
  const isSection = (it) => typeof it?.heading === "string" && typeof it.question === "string";
  if (!Array.isArray(sections) || !sections.length || !sections.every(isSection)) {
    throw new Error("This file is no template: it needs sections, each with a heading and a question.");
  }
  if (sections.length > MOST_SECTIONS) throw new Error(`A report has at most ${MOST_SECTIONS} sections; this template has ${sections.length}.`);
  const choicesOf = ({ choices }) => (Array.isArray(choices) ? choices.map(String) : []);
  return {
    title: typeof read.title === "string" ? read.title : "",
    sections: sections.map((it) => ({ heading: it.heading, question: it.question, choices: choicesOf(it) })),
  };
}

/** What keeps sections from being asked, in words; null for nothing. */
export function flawOf(sections) {
  const headings = sections.map(({ heading }) => heading.trim());
  if (!sections.length) return "A report needs a section.";
  if (headings.some((it) => !it) || sections.some(({ question }) => !question.trim())) return "Each section needs a heading and a question.";
  if (new Set(headings).size < headings.length) return "Two sections have the same heading; give each its own.";
  return null;
}

/** The body of a POST; `sections` null for the server's own. */
export function bodyOf({ title, sections }, model) {
  const asked = sections?.map(({ heading, question, choices }) => ({
    heading: heading.trim(),
    question: question.trim(),
    ...(choices.length ? { choices } : {}),
  }));
  return { model, ...(title.trim() ? { title: title.trim() } : {}), ...(asked ? { sections: asked } : {}) };
}
