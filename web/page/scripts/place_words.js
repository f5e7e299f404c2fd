/**
 * Places that an answer about a whole slide names, such as "the lower right quadrant", and where they are.
 *
 * A place is a box in shares of the tissue's bounding box, from its upper left corner. Only words that can mean nothing
 * else are read: "left" alone may be a side of the body.
 */

const VERTICAL = { upper: [0, 0.5], top: [0, 0.5], lower: [0.5, 1], bottom: [0.5, 1] };
const HORIZONTAL = { left: [0, 0.5], right: [0.5, 1] };
const ROWS = Object.keys(VERTICAL).join("|");
const COLUMNS = Object.keys(HORIZONTAL).join("|");
const NOUN = "quadrant|corner|half|side|part|portion|area|region";
const MIDDLE = [0.25, 0.75];
const PLACE = new RegExp(
  `\\b(?:(?<row>${ROWS})[ -](?<column>${COLUMNS})(?:(?:[ -]hand)? (?:${NOUN}))?` +
    `|(?:(?<rowAlone>${ROWS})|(?<columnAlone>${COLUMNS})) half` +
    `|(?<middle>cent(?:er|re)|middle) of the (?:slide|section|tissue|specimen)` +
    `|(?<central>central) (?:part|portion|area|region))\\b`,
  "giu",
);

/** Every place in a text, in order: `{start, end, box}`, where the box is `{x, y, width, height}` in shares. */
export function placesIn(text) {
  return [...text.matchAll(PLACE)].map((match) => ({
    start: match.index,
    end: match.index + match[0].length,
    box: boxOf(match.groups),
  }));
}

/** A box in shares of another one, in its units. */
export function boxIn(shares, outer) {
  return {
    x: outer.x + shares.x * outer.width,
    y: outer.y + shares.y * outer.height,
    width: shares.width * outer.width,
    height: shares.height * outer.height,
  };
}

function boxOf({ row, column, rowAlone, columnAlone, middle, central }) {
  if (middle || central) return box(MIDDLE, MIDDLE);
  return box(HORIZONTAL[(column ?? columnAlone)?.toLowerCase()], VERTICAL[(row ?? rowAlone)?.toLowerCase()]);
}

function box([left, right] = [0, 1], [top, bottom] = [0, 1]) {
  return { x: left, y: top, width: right - left, height: bottom - top };
}
