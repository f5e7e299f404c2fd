/** Drawing with the pointer over the slide, which stays where it is meanwhile; the wheel still magnifies it. */

import { byId, element } from "./elements.js";
import { viewer } from "./viewer.js";

/**
 * Take the pointer until the returned function is called. `down`, `move` and `up` are given places on the slide,
 * `move` and `up` only after a `down`.
 */
export function takePointer({ down, move, up }) {
  const surface = element("div", { class: "draw-surface" });
  let drawing = null;
  const handlers = {
    pointerdown(event) {
      if (event.button !== 0 || drawing !== null) return;
      drawing = event.pointerId;
      surface.setPointerCapture(drawing);
      byId("canvas").focus({ preventScroll: true });
      down(viewer.slidePoint(event));
    },
    pointermove(event) {
      if (event.pointerId === drawing) move(viewer.slidePoint(event));
    },
    pointerup(event) {
      if (event.pointerId !== drawing) return;
      drawing = null;
      up(viewer.slidePoint(event));
    },
    pointercancel() {
      drawing = null;
    },
  };
  for (const [name, handle] of Object.entries(handlers)) {
    surface.addEventListener(name, (event) => {
      if (name !== "pointermove") event.stopPropagation(); // the pointer's place is still shown
      handle(event);
    });
  }
  viewer.osd.canvas.append(surface);
  return () => surface.remove();
}
