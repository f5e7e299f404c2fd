import assert from "node:assert/strict";
import { test } from "node:test";

import { choiceWords, dropWords, standingOut, stepped, strengthOf, STRENGTHS } from "../../../web/page/scripts/evidence_cells.js";
import { firstBox, movedBox, sizedBox } from "../../../web/page/scripts/key_box.js";

const cell = (name, drop, standsOut) => ({ cell: name, drop, stands_out: standsOut });

test("nothing stands out when the control says so, whatever the drops are", () => {
  assert.deepEqual(standingOut({ stands_out: false, cells: [cell("r0c0", 9, true)] }), []);
});

test("cells that stand out come strongest first", () => {
  const cells = [cell("r0c0", 0.6, true), cell("r0c1", 3, true), cell("r0c2", 0.1, false)];
  assert.deepEqual(standingOut({ stands_out: true, cells }).map((it) => it.cell), ["r0c1", "r0c0"]);
});

test("the scale is the same for every answer", () => {
  assert.deepEqual([-1, 0.1, 1, 3.9, 400].map((drop) => STRENGTHS[strengthOf(drop)].name), [
    "weak", "weak", "clear", "strong", "very strong",
  ]);
});

test("stepping goes round, and nowhere when there is nothing", () => {
  assert.deepEqual([stepped(null, 1, 3), stepped(2, 1, 3), stepped(0, -1, 3), stepped(null, -1, 3)], [0, 0, 2, 2]);
  assert.equal(stepped(null, 1, 0), null);
});

test("drops are worded by their direction", () => {
  assert.equal(dropWords(3.214), "Left out, the answer is less supported by 3.21 nats");
  assert.equal(dropWords(-0.5), "Left out, the answer is more supported by 0.50 nats");
  assert.equal(dropWords(0.001), "Left out, nothing changes");
  assert.equal(choiceWords([{ choice: "Yes", probability: 0.98, without: 0.41 }]), "Yes 0.98 → 0.41");
});

const BOUNDS = { x: 0, y: 0, width: 10000, height: 8000 };

test("a box of keys is 256 µm, or the smallest that can be asked about", () => {
  assert.equal(firstBox({ x: 5000, y: 4000 }, { mpp: 0.25, places: null, bounds: BOUNDS }).width, 1024);
  const places = { side_px: 448, least: 16 };
  assert.deepEqual(firstBox({ x: 5000, y: 4000 }, { mpp: 0.25, places, bounds: BOUNDS }), {
    x: 4104, y: 3104, width: 1792, height: 1792,
  });
});

test("a box of keys moves and grows within the slide", () => {
  const box = { x: 0, y: 0, width: 800, height: 800 };
  assert.deepEqual(movedBox(box, 1, 1, BOUNDS), { ...box, x: 100, y: 100 });
  assert.deepEqual(movedBox(box, -1, 0, BOUNDS), box);
  assert.deepEqual(sizedBox(box, 1, -1, BOUNDS, 800), { ...box, width: 900, height: 700 });
  assert.equal(sizedBox({ ...box, width: 200 }, -1, 0, BOUNDS, 800).width, 200);
});
