import assert from "node:assert/strict";
import { test } from "node:test";

import { commandOf, KEYS } from "../../../web/page/scripts/key_commands.js";
import { boxIn, placesIn } from "../../../web/page/scripts/place_words.js";
import { draftOf, exportOf, isUnedited } from "../../../web/page/scripts/report_text.js";
import { completeSentences, sentencesOf } from "../../../web/page/scripts/sentences.js";

const words = (text) => placesIn(text).map(({ start, end }) => text.slice(start, end));

test("places of an answer are found with their boxes", () => {
  const text = "Yes, in the lower right quadrant and the upper-left corner; the top half is free.";
  assert.deepEqual(words(text), ["lower right quadrant", "upper-left corner", "top half"]);
  assert.deepEqual(placesIn(text).map(({ box }) => box), [
    { x: 0.5, y: 0.5, width: 0.5, height: 0.5 },
    { x: 0, y: 0, width: 0.5, height: 0.5 },
    { x: 0, y: 0, width: 1, height: 0.5 },
  ]);
  assert.deepEqual(words("Near the centre of the slide, and in the central area."), ["centre of the slide", "central area"]);
});

test("words that may mean something else are no places", () => {
  assert.deepEqual(words("The left breast, a low grade, the right answer, top of the list, upper limit."), []);
});

test("a place lies in the box that it is a share of", () => {
  const [{ box }] = placesIn("lower right quadrant");
  assert.deepEqual(boxIn(box, { x: 100, y: 0, width: 1000, height: 400 }), { x: 600, y: 200, width: 500, height: 200 });
});

test("a sentence is said once it is complete", () => {
  assert.deepEqual(sentencesOf("Grade 2. Size 0.5 mm, e.g. here.\n- one\n- two"), [
    "Grade 2.", "Size 0.5 mm, e.g. here.", "- one", "- two",
  ]);
  assert.deepEqual(completeSentences("It is benign. There is", false), ["It is benign."]);
  assert.deepEqual(completeSentences("It is benign. There is", true), ["It is benign.", "There is"]);
  assert.deepEqual(completeSentences("It is", false), []);
});

test("keys mean their commands only without others held, and letters only while they are not turned off", () => {
  const press = (key, held = {}) => ({ key, shiftKey: false, ctrlKey: false, altKey: false, metaKey: false, ...held });
  assert.deepEqual(commandOf(press("r"), true), { command: "rectangle", large: false });
  assert.deepEqual(commandOf(press("R", { shiftKey: true }), true), { command: "whole-slide", large: true });
  assert.deepEqual(commandOf(press("D", { shiftKey: true }), true), { command: "right", large: true });
  assert.deepEqual(commandOf(press("?", { shiftKey: true }), true), { command: "keys", large: true });
  assert.equal(commandOf(press("r", { ctrlKey: true }), true), null);
  assert.equal(commandOf(press("x"), true), null);
  assert.equal(commandOf(press("r"), false), null);
  assert.equal(commandOf(press("R", { shiftKey: true }), false), null);
  assert.deepEqual(commandOf(press("ArrowUp", { shiftKey: true }), false), { command: "up", large: true });
});

test("no key has two meanings", () => {
  const keys = KEYS.flatMap(({ commands }) => Object.keys(commands));
  assert.equal(new Set(keys).size, keys.length);
});

const SOURCE = {
  number: 1,
  text: "It is glandular. Grade 2.",
  question: "What pattern?",
  scope: "whole slide",
  model: "demo",
  encoderId: "a205",
  at: "2026-11-29T16:12:00Z",
  conversationId: "conv_1",
  turn: 3,
  requestId: "4f2a",
  notice: "Research use only.",
  warnings: [],
};

test("a draft says of every sentence where it comes from and whether a person changed it", () => {
  const [first, second] = draftOf([SOURCE]);
  const edited = { ...second, text: "Grade 2 (Nottingham)." };
  const own = { original: "", text: "No lymph node.", source: null };
  assert.deepEqual([first, edited, own].map(isUnedited), [true, false, false]);

  const text = exportOf([first, edited, own], { filename: "case.svs", slideId: "5e5e", madeAt: "now" });

  assert.match(text, /Research use only\./);
  assert.match(text, /It is glandular\. \[1\] \[unedited\]\n/);
  assert.match(text, /Grade 2 \(Nottingham\)\. \[1\] \[edited\]\n/);
  assert.match(text, /No lymph node\. \[written by hand\]\n/);
  assert.match(text, /1 of 3 sentences/);
  assert.match(text, /Turn 3 of conv_1, request 4f2a/);
});

test("what was struck out is not exported, nor what it alone rested on", () => {
  const sentences = draftOf([SOURCE, { ...SOURCE, number: 2, question: "Necrosis?", text: "Yes." }]);
  const text = exportOf(sentences.map((it) => (it.source.number === 2 ? { ...it, text: " " } : it)), {
    filename: "case.svs",
    slideId: "5e5e",
    madeAt: "now",
  });
  assert.doesNotMatch(text, /Necrosis/);
});
