import assert from "node:assert/strict";
import { test } from "node:test";

import { bodyOf, flawOf, templateIn } from "../../../web/page/scripts/report_template.js";
import { changesOf, labelsIn, saidOf } from "../../../web/page/scripts/said_of_slides.js";

const SLIDE = { case: "S26-0815", accession: null, patient_ref: null, stain: "HE", body_site: null, labels: ["teaching", "second read"] };

test("what is said is shown in its order, and what is not said is left out", () => {
  assert.deepEqual(saidOf(SLIDE).map(({ name, values }) => [name, ...values]), [
    ["case", "S26-0815"], ["stain", "HE"], ["label", "teaching", "second read"],
  ]);
  assert.deepEqual(saidOf({ case: null, labels: [] }), []);
});

test("only what was changed is sent, and what was emptied is taken back", () => {
  const typed = { case: " S26-0815 ", accession: "A26-1", patient_ref: "", stain: "", body_site: "", labels: "teaching, second read" };
  assert.deepEqual(changesOf(SLIDE, typed), { accession: "A26-1", stain: null });
  assert.deepEqual(changesOf(SLIDE, { ...typed, accession: "", stain: "HE", labels: "" }), { labels: [] });
});

test("labels are separated by commas, and each counts once", () => {
  assert.deepEqual(labelsIn(" a , b,, a,c  d,"), ["a", "b", "c d"]);
});

test("a template is read as the command line reads it, and refused in words", () => {
  const sections = [{ heading: "Necrosis", question: "Is there necrosis?", choices: ["Yes", "No"] }];
  assert.deepEqual(templateIn(JSON.stringify({ title: "Short", sections })), { title: "Short", sections });
  assert.deepEqual(templateIn('{"sections": [{"heading": "A", "question": "B"}]}').sections[0].choices, []);
  assert.throws(() => templateIn("no"), /not JSON/);
  for (const text of ["null", "[]", '{"sections": []}', '{"sections": [{"heading": "A"}]}']) {
    assert.throws(() => templateIn(text), /needs sections/, text);
  }
  const many = Array.from({ length: 21 }, (_, index) => ({ heading: String(index), question: "?" }));
  assert.throws(() => templateIn(JSON.stringify({ sections: many })), /at most 20/);
});

test("what the server would refuse is said before it is asked", () => {
  const section = (heading, question = "Why?") => ({ heading, question, choices: [] });
  assert.equal(flawOf([section("A"), section("B")]), null);
  assert.match(flawOf([]), /needs a section/);
  assert.match(flawOf([section("A"), section(" A ")]), /same heading/);
  assert.match(flawOf([section("A", " ")]), /a heading and a question/);
  assert.deepEqual(bodyOf({ title: "", sections: null }, "demo"), { model: "demo" });
  assert.deepEqual(bodyOf({ title: " T ", sections: [section(" A ")] }, "demo"), {
    model: "demo", title: "T", sections: [{ heading: "A", question: "Why?" }],
  });
});
