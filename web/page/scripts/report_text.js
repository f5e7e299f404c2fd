/**
 * The draft of a report: sentences of answers, each with the turn that it comes from.
 *
 * A sentence is `{original, text, source}`, where `source` is `{number, question, slide, scope, model, encoderId,
 * at, conversationId, turn, requestId, notice}`; sentences that a person wrote have the source null.
 */

import { sentencesOf } from "./sentences.js";

/** Sentences of answers, in their order. `sources` have the answer's `text` too. */
export function draftOf(sources) {
  return sources.flatMap(({ text, ...source }) =>
    sentencesOf(text).map((sentence) => ({ original: sentence, text: sentence, source })),
  );
}

/** As the model wrote it, every character. */
export const isUnedited = (sentence) => sentence.source !== null && sentence.text.trim() === sentence.original;

/** The draft as text, with what it rests on and the notices. */
export function exportOf(sentences, { filename, slideId, madeAt }) {
  const kept = sentences.filter(({ text }) => text.trim());
  const sources = [...new Map(kept.filter(({ source }) => source).map(({ source }) => [source.number, source])).values()];
  const unedited = kept.filter(isUnedited).length;
  const notices = [...new Set(sources.map(({ notice }) => notice))];
  return [
    "DRAFT: not a report, not reviewed unless its sentences say otherwise.",
    ...notices,
    "",
    `Slide: ${filename} (${slideId})`,
    `Made: ${madeAt}`,
    `${unedited} of ${kept.length} sentences are as a model wrote them, marked [unedited].`,
    "",
    ...kept.map(sentenceLine),
    "",
    "What the sentences rest on:",
    ...sources.flatMap(sourceLines),
    "",
  ].join("\n");
}

function sentenceLine(sentence) {
  const marks = sentence.source ? ` [${sentence.source.number}]${isUnedited(sentence) ? " [unedited]" : " [edited]"}` : " [written by hand]";
  return `${sentence.text.trim()}${marks}`;
}

function sourceLines({ number, question, scope, model, encoderId, at, conversationId, turn, requestId, warnings }) {
  return [
    `[${number}] ${question}`,
    `    About: ${scope}. Model ${model}, encoder ${encoderId}, ${at}.`,
    `    Turn ${turn} of ${conversationId}, request ${requestId}.`,
    ...warnings.map((detail) => `    Doubt: ${detail}`),
  ];
}
