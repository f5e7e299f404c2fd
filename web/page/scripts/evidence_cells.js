/**
 * What leaving a cell out says, as it may be shown: on one scale for all answers, and nothing where nothing stands out.
 *
 * A drop is how many nats the log-likelihood of this very answer falls when tissue is left out around the cell. The scale is fixed, so that a
 * weak finding looks weak: it is never stretched to the largest drop.
 */

/** Least drop of each strength in nats, the weakest first: the answer becomes 1.6, 2.7, 7 and 55 times less likely. */
export const STRENGTHS = [
  { least: 0, name: "weak", words: "below 1 nat" },
  { least: 1, name: "clear", words: "1 to 2 nats" },
  { least: 2, name: "strong", words: "2 to 4 nats" },
  { least: 4, name: "very strong", words: "4 nats or more" },
];

/** How strong a drop is: an index of STRENGTHS. */
export function strengthOf(drop) {
  return STRENGTHS.findLastIndex(({ least }) => drop >= least || least === 0);
}

/** The cells that stand out, strongest first; none when the control says that nothing does. */
export function standingOut({ stands_out: standsOut, cells }) {
  if (!standsOut) return [];
  return cells.filter((cell) => cell.stands_out).sort((one, other) => other.drop - one.drop);
}

/** The index after or before another one, round and round; the first when nothing was chosen. */
export function stepped(index, by, count) {
  if (!count) return null;
  if (index === null) return by > 0 ? 0 : count - 1;
  return (index + by + count) % count;
}

/** A cell's drop in words. */
export function dropWords(drop) {
  const size = Math.abs(drop) < 0.005 ? "0.00" : Math.abs(drop).toFixed(2);
  if (size === "0.00") return "Left out, nothing changes";
  return `Left out, the answer is ${drop > 0 ? "less" : "more"} supported by ${size} nats`;
}

/** What leaving the cell out does to the support of each choice of a closed answer: "Yes 0.98 → 0.41". */
export function choiceWords(choices) {
  return choices
    .map(({ choice, probability, without }) => `${choice} ${probability.toFixed(2)} → ${without.toFixed(2)}`)
    .join(", ");
}
