/** Plane geometry in pixels of level 0: outlines are arrays of corners `[x, y]`, boxes `{x, y, width, height}`. */

/** The corners of a box. */
export function cornersOf({ x, y, width, height }) {
  return [
    [x, y],
    [x + width, y],
    [x + width, y + height],
    [x, y + height],
  ];
}

/** The box between two corners, in whichever order. */
export function boxBetween([x1, y1], [x2, y2]) {
  return { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x2 - x1), height: Math.abs(y2 - y1) };
}

/** The smallest box around points; null around none. */
export function boxAround(points) {
  if (!points.length) return null;
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of points) {
    left = Math.min(left, x);
    top = Math.min(top, y);
    right = Math.max(right, x);
    bottom = Math.max(bottom, y);
  }
  return { x: left, y: top, width: right - left, height: bottom - top };
}

/** A box moved as little as it takes to lie within bounds; a larger one is cut to them. */
export function within(box, bounds) {
  const width = Math.min(box.width, bounds.width);
  const height = Math.min(box.height, bounds.height);
  return {
    x: clamp(box.x, bounds.x, bounds.x + bounds.width - width),
    y: clamp(box.y, bounds.y, bounds.y + bounds.height - height),
    width,
    height,
  };
}

export const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

/** A line with as few of its points as keep it within `tolerance` (Douglas and Peucker 1973). */
export function thinned(points, tolerance) {
  if (points.length < 3) return points;
  const kept = new Uint8Array(points.length);
  kept[0] = kept[points.length - 1] = 1;
  const open = [[0, points.length - 1]];
  while (open.length) {
    const [first, last] = open.pop();
    let farthest = 0;
    let distance = tolerance;
    for (let index = first + 1; index < last; index += 1) {
      const away = distanceToSegment(points[index], points[first], points[last]);
      if (away > distance) [farthest, distance] = [index, away];
    }
    if (!farthest) continue;
    kept[farthest] = 1;
    open.push([first, farthest], [farthest, last]);
  }
  return points.filter((_, index) => kept[index]);
}

/** The same with at most `most` points, as coarse as that takes. */
export function thinnedTo(points, tolerance, most) {
  let result = thinned(points, tolerance);
  for (let coarser = tolerance * 2; result.length > most; coarser *= 2) result = thinned(points, coarser);
  return result;
}

/**
 * How many tiles lie in an outline by their centres, by the rule of the server (`TilePlaces.inside`), which decides.
 * `coords` are their upper left corners.
 */
export function countInside(coords, sidePx, corners) {
  let count = 0;
  const box = boxAround(corners);
  for (const [left, top] of coords) {
    const x = left + sidePx / 2;
    const y = top + sidePx / 2;
    if (x < box.x || y < box.y || x > box.x + box.width || y > box.y + box.height) continue;
    if (isInside(x, y, corners)) count += 1;
  }
  return count;
}

function isInside(x, y, corners) {
  let inside = false;
  for (let index = 0; index < corners.length; index += 1) {
    const [x1, y1] = corners[index];
    const [x2, y2] = corners[(index + 1) % corners.length];
    if (y < Math.min(y1, y2) || y >= Math.max(y1, y2)) continue;
    if (x < x1 + (y - y1) * ((x2 - x1) / (y2 - y1))) inside = !inside;
  }
  return inside;
}

function distanceToSegment([x, y], [x1, y1], [x2, y2]) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const share = dx || dy ? clamp(((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy), 0, 1) : 0;
  return Math.hypot(x - x1 - share * dx, y - y1 - share * dy);
}
