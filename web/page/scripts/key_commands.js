/**
 * The keys of the slide: which key is which command, and what the list of keys says.
 *
 * They hold only while the slide has the focus. Single letters, digits and signs can be turned off (WCAG 2.1.4); arrows,
 * Enter and Escape are not such keys, and stay.
 */

/** `keys` as they are told, `commands` by the key's `KeyboardEvent.key`, `says` what they do. */
export const KEYS = [
  {
    group: "Look",
    keys: ["arrows", "W A S D"],
    says: "Move; with Shift by half a view",
    commands: {
      ArrowLeft: "left",
      ArrowRight: "right",
      ArrowUp: "up",
      ArrowDown: "down",
      a: "left",
      d: "right",
      w: "up",
      s: "down",
    },
  },
  { group: "Look", keys: ["+", "−"], says: "Magnify more, less", commands: { "+": "closer", "=": "closer", "-": "farther", _: "farther" } },
  { group: "Look", keys: ["0"], says: "The whole slide", commands: { 0: "home" } },
  {
    group: "Look",
    keys: ["1 – 5"],
    says: "2×, 5×, 10×, 20×, 40×",
    commands: { 1: "objective-0", 2: "objective-1", 3: "objective-2", 4: "objective-3", 5: "objective-4" },
  },
  { group: "Look", keys: ["M"], says: "Measure a length", commands: { m: "measure" } },
  { group: "Region", keys: ["R"], says: "Draw a rectangle", commands: { r: "rectangle" } },
  { group: "Region", keys: ["F"], says: "Draw freehand", commands: { f: "freehand" } },
  {
    group: "Region",
    keys: ["Enter"],
    says: "Place a box at the crosshair; arrows move it, Shift+arrows size it, Enter draws the region",
    commands: { Enter: "enter" },
  },
  { group: "Region", keys: ["Shift+R"], says: "Ask about the whole slide again", commands: { "Shift+r": "whole-slide" } },
  { group: "Region", keys: ["Esc"], says: "Give up what is being drawn", commands: { Escape: "cancel" } },
  { group: "What the answer rests on", keys: ["T"], says: "Tiles that the model was given", commands: { t: "tiles" } },
  { group: "What the answer rests on", keys: ["L"], says: "Regions and patches, of models that look at levels", commands: { l: "levels" } },
  { group: "What the answer rests on", keys: ["E"], says: "Evidence of the last answer", commands: { e: "evidence" } },
  { group: "What the answer rests on", keys: ["N", "P"], says: "Next, previous cell", commands: { n: "next-cell", p: "previous-cell" } },
  { group: "What the answer rests on", keys: ["[", "]"], says: "Fainter, stronger overlay", commands: { "[": "fainter", "]": "bolder" } },
  { group: "Elsewhere", keys: ["/"], says: "To the question", commands: { "/": "question" } },
  { group: "Elsewhere", keys: ["?"], says: "This list", commands: { "?": "keys" } },
];

const COMMANDS = new Map(KEYS.flatMap(({ commands }) => Object.entries(commands)));
const TURNED_OFF = /^(Shift\+)?.$/u;
/** Letters for which Shift means something else than a larger step. */
const SHIFTED = new Set(["r"]);

/**
 * What a key press means: `{command, large}`, where `large` is whether Shift was held; null when it means nothing.
 * `letters` is whether keys of a single character hold.
 */
export function commandOf({ key, shiftKey, ctrlKey, altKey, metaKey }, letters) {
  if (ctrlKey || altKey || metaKey) return null;
  const name = key.length === 1 ? key.toLowerCase() : key;
  const full = shiftKey && SHIFTED.has(name) ? `Shift+${name}` : name;
  if (!COMMANDS.has(full) || (!letters && TURNED_OFF.test(full))) return null;
  return { command: COMMANDS.get(full), large: shiftKey };
}
