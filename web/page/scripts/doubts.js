/** What is doubtful, as the API warns of it, before and beside answers. */

import { element } from "./elements.js";

/** Makes every answer about the slide doubtful: red. */
const GRAVE = "unlike_training";

/** A paragraph for each warning `{code, detail}`, the grave ones first. */
export function doubtElements(warnings) {
  const sorted = [...warnings].sort((one, other) => Number(other.code === GRAVE) - Number(one.code === GRAVE));
  return sorted.map(({ code, detail }) =>
    element("p", { class: code === GRAVE ? "doubt grave" : "doubt", dataset: { code }, text: detail }),
  );
}
