/** A box that is placed, moved and sized by keys; pixels of level 0. */

import { clamp, within } from "./geometry.js";

const SIDE_UM = 256;
/** Where nobody knows the µm/px. */
const SIDE_PX = 512;
/** Of the box's sides: what one press of an arrow moves or grows it by. */
const STEP_SHARE = 1 / 8;
const LEAST_SIDE_SHARE = 1 / 4;

/**
 * The box that Enter places around a point: 256 µm, or the smallest square that can be asked about, where that is
 * larger. `places` are those of the model's tiles, null while nobody knows them.
 */
export function firstBox({ x, y }, { mpp, places, bounds }) {
  const side = Math.max(mpp ? SIDE_UM / mpp : SIDE_PX, places ? smallestSide(places) : 0);
  return within({ x: x - side / 2, y: y - side / 2, width: side, height: side }, bounds);
}

/** A square of this side holds `least` tiles of a full grid, wherever it lies on it. */
function smallestSide({ side_px: sidePx, least }) {
  return sidePx * Math.ceil(Math.sqrt(least));
}

/** The box a step on: `right` and `down` are −1, 0 or 1. */
export function movedBox(box, right, down, bounds) {
  const step = STEP_SHARE * Math.min(box.width, box.height);
  return within({ ...box, x: box.x + right * step, y: box.y + down * step }, bounds);
}

/** The box a step larger or smaller; its upper left corner stays, as far as the slide reaches. */
export function sizedBox(box, right, down, bounds, firstSide) {
  const least = firstSide * LEAST_SIDE_SHARE;
  const step = firstSide * STEP_SHARE;
  return within(
    {
      ...box,
      width: clamp(box.width + right * step, least, bounds.width),
      height: clamp(box.height + down * step, least, bounds.height),
    },
    bounds,
  );
}
