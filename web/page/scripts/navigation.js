/** Moving over the slide: by keys, and by buttons for each objective. */

import { onCommand } from "./commands.js";
import { byId } from "./elements.js";
import { isBeyondScan, OBJECTIVES, slidePxPerScreenPx } from "./magnification.js";
import { store } from "./store.js";
import { setUsable, tool, toolGroup } from "./toolbar.js";
import { viewer } from "./viewer.js";

const STEP_PX = 80;
const STEP_ZOOM = 1.5;
const DIRECTIONS = { left: [-1, 0], right: [1, 0], up: [0, -1], down: [0, 1] };

export function startNavigation() {
  toolGroup(
    "Magnification",
    tool("−", { key: "-", command: "farther", title: "Magnify less", label: "Magnify less" }),
    ...OBJECTIVES.map((objective, index) =>
      tool(`${objective}×`, { key: String(index + 1), command: `objective-${index}`, title: `As with an objective of ${objective}×` }),
    ),
    tool("+", { key: "+", command: "closer", title: "Magnify more", label: "Magnify more" }),
    tool("Fit", { key: "0", command: "home", title: "The whole slide" }),
  );
  for (const [name, [right, down]] of Object.entries(DIRECTIONS)) onCommand(name, (large) => move(right, down, large));
  onCommand("closer", () => zoom(1 / STEP_ZOOM));
  onCommand("farther", () => zoom(STEP_ZOOM));
  onCommand("home", () => viewer.isOpen && viewer.home());
  onCommand("question", () => byId("question").focus());
  OBJECTIVES.forEach((objective, index) => onCommand(`objective-${index}`, () => magnifyAs(objective)));
  store.on("slide", showObjectives);
  viewer.addEventListener("opened", () => showObjectives(store.get("slide")));
  showObjectives(store.get("slide"));
}

function move(right, down, large) {
  if (!viewer.isOpen) return;
  const { width, height } = viewer.view;
  const half = 0.5 / viewer.slidePxPerScreenPx;
  viewer.pan(right * (large ? width * half : STEP_PX), down * (large ? height * half : STEP_PX));
}

function zoom(factor) {
  if (viewer.isOpen) viewer.magnify(viewer.targetSlidePxPerScreenPx * factor);
}

function magnifyAs(objective) {
  const mpp = store.get("slide")?.mpp;
  if (mpp && viewer.isOpen) viewer.magnify(slidePxPerScreenPx(objective, mpp));
}

/** Without µm/px nobody knows what an objective would show; beyond the scan there are only larger pixels. */
function showObjectives(slide) {
  OBJECTIVES.forEach((objective, index) => {
    const command = `objective-${index}`;
    const made = byId("tools").querySelector(`[data-command="${command}"]`);
    const beyond = slide?.mpp ? isBeyondScan(objective, slide.mpp) : false;
    made.classList.toggle("beyond", beyond);
    const unknown = slide && !slide.mpp ? "; the slide does not say its µm/px" : "";
    const empty = beyond ? "; more than this scan has detail for" : "";
    made.title = `As with an objective of ${objective}× (${index + 1})${unknown}${empty}`;
    setUsable(command, Boolean(slide?.mpp));
  });
}
