/** Places that an answer names become links to them. All other text stays text. */

import { decorateCards } from "./cards.js";
import { button, element, svgElement } from "./elements.js";
import { boxIn, placesIn } from "./place_words.js";
import { tissueBox } from "./places.js";
import { chooseSlide } from "./slides.js";
import { store } from "./store.js";
import { say } from "./tool_says.js";
import { showView } from "./views.js";
import { viewer } from "./viewer.js";

/** What stays on the line of the word before it. */
const MARKS = /^[.,;:!?)]*/;

export function startPlaceLinks() {
  decorateCards((answer, { text }) => {
    // Of an answer about a region nobody knows whether its places are meant in the region or in the slide.
    if (answer.scope.kind === "region") return;
    text.replaceChildren(...linked(answer));
  });
  store.on("slideId", () => viewer.layer("place").replaceChildren());
}

function linked(answer) {
  const nodes = [];
  let from = 0;
  for (const { start, end, box } of placesIn(answer.text)) {
    const words = answer.text.slice(start, end);
    const link = button(words, () => fly(answer, box, words), { class: "place", title: `Show the ${words} on the slide` });
    const [mark] = answer.text.slice(end).match(MARKS);
    nodes.push(document.createTextNode(answer.text.slice(from, start)), mark ? element("span", { class: "unbroken" }, link, mark) : link);
    from = end + mark.length;
  }
  nodes.push(document.createTextNode(answer.text.slice(from)));
  return nodes;
}

async function fly(answer, shares, words) {
  if (store.get("slideId") !== answer.slide.id) await chooseSlide(answer.slide.id);
  showView("viewer");
  if (!viewer.isOpen) return;
  const box = boxIn(shares, tissueBox(store.get("places")) ?? { x: 0, y: 0, ...viewer.size });
  viewer.layer("place").replaceChildren(svgElement("rect", { class: "casing", ...box }), svgElement("rect", { class: "line", ...box }));
  viewer.showWithin(box);
  say(`The ${words} of the tissue.`);
}
