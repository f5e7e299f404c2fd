/** The middle of the view, where keys place and measure; shown while the slide has the focus of the keyboard. */

import { byId, element } from "./elements.js";

export function startCrosshair() {
  byId("canvas").append(element("div", { class: "crosshair", "aria-hidden": "true" }));
}
