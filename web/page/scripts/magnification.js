/**
 * Magnification as pathologists name it, by objective, and lengths in µm.
 *
 * An objective of 40× is 0.25 µm per pixel of the screen (a CSS pixel), as scanners count: 10 µm / objective.
 */

export const OBJECTIVES = [2, 5, 10, 20, 40];
const UM_PX_AT_1X = 10;
const NICE_DIGITS = [5, 2, 1];
/** Pixels of a finer scan are seen below that; above, only larger pixels. */
const ROUNDING = 1.1;

/** Pixels of level 0 under a pixel of the screen, at an objective. */
export function slidePxPerScreenPx(objective, mpp) {
  return UM_PX_AT_1X / objective / mpp;
}

/** The objective at which a pixel of the screen shows so many pixels of level 0. */
export function objectiveAt(slidePx, mpp) {
  return UM_PX_AT_1X / (slidePx * mpp);
}

/** Whether an objective magnifies more than the scan has detail for. */
export function isBeyondScan(objective, mpp) {
  return objective > (UM_PX_AT_1X / mpp) * ROUNDING;
}

/** An objective in words: 0.8×, 7.5×, 40×. */
export function objectiveWords(objective) {
  const digits = objective < 10 ? 1 : 0;
  return `${Number(objective.toFixed(digits))}×`;
}

/** A scale bar at most `mostPx` wide whose length is 1, 2 or 5 × 10ⁿ µm: `{um, px}`. */
export function scaleBar(umPerPx, mostPx) {
  const mostUm = umPerPx * mostPx;
  const power = 10 ** Math.floor(Math.log10(mostUm));
  const um = power * NICE_DIGITS.find((digit) => digit * power <= mostUm * (1 + 1e-9));
  return { um, px: um / umPerPx };
}

/** A length in words: 0.5 µm, 250 µm, 1.25 mm. */
export function lengthWords(um) {
  if (um >= 1000) return `${Number((um / 1000).toPrecision(4))} mm`;
  return `${Number(um.toPrecision(um < 10 ? 2 : um < 100 ? 3 : 4))} µm`;
}
