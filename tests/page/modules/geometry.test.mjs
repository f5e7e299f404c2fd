import assert from "node:assert/strict";
import { test } from "node:test";

import { boxAround, boxBetween, cornersOf, countInside, thinned, thinnedTo, within } from "../../../web/page/scripts/geometry.js";

test("a box is the same whichever corner comes first", () => {
  const box = { x: 10, y: 20, width: 30, height: 5 };
  assert.deepEqual(boxBetween([40, 20], [10, 25]), box);
  assert.deepEqual(boxAround(cornersOf(box)), box);
  assert.equal(boxAround([]), null);
});

test("a box is moved into bounds as little as it takes, and cut to them", () => {
  const bounds = { x: 0, y: 0, width: 100, height: 50 };
  assert.deepEqual(within({ x: 95, y: -5, width: 10, height: 10 }, bounds), { x: 90, y: 0, width: 10, height: 10 });
  assert.deepEqual(within({ x: -9, y: 9, width: 500, height: 10 }, bounds), { x: 0, y: 9, width: 100, height: 10 });
});

test("a thinned line keeps its corners and loses what lies on a straight way", () => {
  const line = [[0, 0], [1, 0.1], [2, 0.05], [3, -0.1], [4, 0], [4, 4]];
  assert.deepEqual(thinned(line, 0.5), [[0, 0], [4, 0], [4, 4]]);
  assert.deepEqual(thinned(line, 0.01), line);
});

test("a line has no more points than may be sent", () => {
  const circle = Array.from({ length: 5000 }, (_, i) => [1e4 * Math.cos(i / 795), 1e4 * Math.sin(i / 795)]);
  const sent = thinnedTo(circle, 0.001, 100);
  assert.ok(sent.length <= 100 && sent.length > 20);
});

test("tiles belong to an outline by their centres, as the server counts them", () => {
  const coords = Array.from({ length: 100 }, (_, i) => [100 * (i % 10), 100 * Math.floor(i / 10)]);
  assert.equal(countInside(coords, 100, cornersOf({ x: 0, y: 0, width: 500, height: 500 })), 25);
  assert.equal(countInside(coords, 100, cornersOf({ x: 51, y: 0, width: 500, height: 500 })), 25);
  assert.equal(countInside(coords, 100, [[0, 0], [1000, 0], [0, 1000]]), 45);
  // A centre on the outline belongs to one side: two halves have each tile once.
  const left = countInside(coords, 100, cornersOf({ x: 0, y: 0, width: 450, height: 1000 }));
  const right = countInside(coords, 100, cornersOf({ x: 450, y: 0, width: 550, height: 1000 }));
  assert.equal(left + right, 100);
});
