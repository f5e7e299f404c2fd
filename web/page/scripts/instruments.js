/** Under the slide: a scale bar, the magnification, where the pointer is, and whether colours are managed. */

import { byId, element } from "./elements.js";
import { lengthWords, objectiveAt, objectiveWords, scaleBar } from "./magnification.js";
import { store } from "./store.js";
import { viewer } from "./viewer.js";

const WIDEST_BAR_PX = 160;
const COLOUR = {
  text: "not colour-managed",
  title: "Colours are as the scanner stored them: no ICC profile of the slide or of this screen is applied.",
};

export function startInstruments() {
  const bar = element("div", { id: "scale-bar", role: "img" }, element("span", { class: "bar" }), element("span", { class: "bar-words" }));
  const magnification = element("span", { id: "magnification" });
  const position = element("span", { id: "position" });
  byId("instruments").append(
    bar,
    element("p", { class: "readings" }, magnification, position, element("span", { id: "colour", ...COLOUR })),
  );
  const show = () => showScale(bar, magnification);
  viewer.addEventListener("moved", show);
  store.on("slide", show);
  byId("canvas").addEventListener("pointermove", (event) => {
    if (viewer.isOpen) position.textContent = placeWords(viewer.slidePoint(event));
  });
  viewer.addEventListener("opened", () => {
    position.textContent = "";
    show();
  });
  show();
}

/** A place on the slide: µm from its upper left corner, or pixels where nobody knows their size. */
function placeWords({ x, y }) {
  const mpp = store.get("slide")?.mpp;
  return mpp ? `x ${whole(x * mpp)}, y ${whole(y * mpp)} µm` : `x ${whole(x)}, y ${whole(y)} px`;
}

const whole = (number) => Math.round(number).toLocaleString("en").replaceAll(",", "\u202f");

function showScale(bar, magnification) {
  const mpp = store.get("slide")?.mpp;
  byId("instruments").hidden = !viewer.isOpen;
  bar.hidden = !mpp;
  if (!viewer.isOpen) return;
  if (!mpp) {
    magnification.textContent = "µm/px unknown";
    return;
  }
  const { um, px } = scaleBar(viewer.slidePxPerScreenPx * mpp, WIDEST_BAR_PX);
  bar.querySelector(".bar").style.inlineSize = `${px}px`;
  bar.querySelector(".bar-words").textContent = lengthWords(um);
  bar.setAttribute("aria-label", `Scale bar of ${lengthWords(um)}`);
  magnification.textContent = objectiveWords(objectiveAt(viewer.slidePxPerScreenPx, mpp));
}
