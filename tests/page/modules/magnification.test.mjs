import assert from "node:assert/strict";
import { test } from "node:test";

import {
  isBeyondScan,
  lengthWords,
  objectiveAt,
  objectiveWords,
  scaleBar,
  slidePxPerScreenPx,
} from "../../../web/page/scripts/magnification.js";

test("20× on a slide of 0.25 µm/px shows 0.5 µm, two of its pixels, in one of the screen", () => {
  assert.equal(slidePxPerScreenPx(20, 0.25), 2);
  assert.equal(objectiveAt(2, 0.25), 20);
});

test("40× of a scan at 20× has no more detail, and of one at 40× it has", () => {
  assert.ok(isBeyondScan(40, 0.5));
  assert.ok(!isBeyondScan(40, 0.2527));
});

test("a scale bar is 1, 2 or 5 × 10ⁿ µm and as wide as fits", () => {
  for (const umPerPx of [0.1, 0.25, 0.5003, 3, 17, 999]) {
    const { um, px } = scaleBar(umPerPx, 150);
    assert.ok(px <= 150.001 && px > 59, `${umPerPx}: ${px}`);
    assert.ok(Math.abs(px * umPerPx - um) < 1e-9 * um);
    assert.ok(["1", "2", "5"].includes(um.toPrecision(1)[0]));
  }
  assert.deepEqual(scaleBar(1, 100), { um: 100, px: 100 });
});

test("lengths and objectives are worded as people read them", () => {
  assert.deepEqual([0.25, 5, 50, 500, 1000, 2500, 12345].map(lengthWords), [
    "0.25 µm", "5 µm", "50 µm", "500 µm", "1 mm", "2.5 mm", "12.35 mm",
  ]);
  assert.deepEqual([0.83, 5.02, 39.97].map(objectiveWords), ["0.8×", "5×", "40×"]);
});
