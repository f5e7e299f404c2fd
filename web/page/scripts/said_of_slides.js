/** What can be said of a slide, as people call it, and what of it is shown; nothing here knows of the page. */

/** Fields of the API in the order in which they are shown; a search by one of them compares the whole text. */
export const SAID_FIELDS = [
  { name: "case", words: "Case", hint: "Groups it with other slides, e.g. S26-0815." },
  { name: "accession", words: "Accession", hint: "Number of the order in the laboratory's system." },
  { name: "patient_ref", words: "Patient reference", hint: "Best a pseudonym; no name is needed here." },
  { name: "stain", words: "Stain", hint: "E.g. HE." },
  { name: "body_site", words: "Body site", hint: "Where the tissue is from, e.g. breast, left." },
];
export const LABELS_WORDS = "Labels";

/** How slides are looked for: by part of the file name, or by the whole of what is said. `query` is the API's name. */
export const SEARCHES = [
  { query: "name", words: "file name", isWhole: false },
  ...SAID_FIELDS.map(({ name, words }) => ({ query: name, words: words.toLowerCase(), isWhole: true })),
  { query: "label", words: "label", isWhole: true },
];

/** What is said of the slide: `[{name, words, values}]`, without what nobody said. */
export function saidOf(slide) {
  const fields = SAID_FIELDS.map(({ name, words }) => ({ name, words, values: slide[name] ? [slide[name]] : [] }));
  const labels = { name: "label", words: LABELS_WORDS, values: slide.labels ?? [] };
  return [...fields, labels].filter(({ values }) => values.length > 0);
}

/** Labels as they are typed: separated by commas, each once. */
export function labelsIn(text) {
  const words = text.split(",").map((label) => label.trim().replace(/\s+/g, " "));
  return [...new Set(words.filter(Boolean))];
}

/** Of what was typed, `{field: text, labels: text}`, what differs from the slide: the body of a PATCH. Empty is null. */
export function changesOf(slide, typed) {
  const changes = {};
  for (const { name } of SAID_FIELDS) {
    const value = typed[name].trim() || null;
    if (value !== (slide[name] ?? null)) changes[name] = value;
  }
  const labels = labelsIn(typed.labels);
  if (labels.join(",") !== (slide.labels ?? []).join(",")) changes.labels = labels;
  return changes;
}
