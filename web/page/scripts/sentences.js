/** Text in sentences. */

const LOCALE = "en";

/** The sentences of a text, without the space around them; a numbered or bulleted line is one. */
export function sentencesOf(text) {
  const segmenter = new Intl.Segmenter(LOCALE, { granularity: "sentence" });
  const lines = text.split(/\n+/u);
  return lines.flatMap((line) => [...segmenter.segment(line)].map(({ segment }) => segment.trim())).filter(Boolean);
}

/**
 * Those sentences of a text that is still being written which are surely complete: something follows them. With
 * `isWhole` all of them.
 */
export function completeSentences(text, isWhole) {
  const all = sentencesOf(text);
  return isWhole || /\n$/u.test(text) ? all : all.slice(0, -1);
}
