/** What the next question is about: the whole slide, or one of the regions. Scopes never change by themselves. */

import { scopeWords } from "./cards.js";
import { runCommand } from "./commands.js";
import { button, byId, element } from "./elements.js";
import { scopeOf } from "./regions.js";
import { showRegion } from "./regions_layer.js";
import { store } from "./store.js";

export function startScopeSwitch() {
  for (const name of ["slideId", "slide", "slideGone", "regions", "scope"]) store.on(name, show);
  show();
}

function show() {
  const place = byId("scope");
  const hadFocus = place.contains(document.activeElement);
  const regions = store.get("regions");
  const slide = store.get("slide");
  const chosen = store.get("scope").region_id ?? null;
  const choices = [null, ...regions].map((region) => choice(region, (region?.region_id ?? null) === chosen));
  place.replaceChildren(
    element(
      "fieldset",
      { disabled: !slide || store.get("slideGone") !== null },
      element("legend", { class: "small", text: "About" }),
      choices,
      regions.length || slide?.status !== "ready"
        ? null
        : button("Draw a region …", () => runCommand("rectangle"), { class: "quiet draw-region" }),
    ),
  );
  if (hadFocus) place.querySelector("input:checked")?.focus();
}

function choice(region, isChosen) {
  const scope = scopeOf(region);
  const radio = element("input", {
    type: "radio",
    name: "scope",
    value: region?.region_id ?? "slide",
    onchange: () => store.set("scope", scope),
  });
  radio.checked = isChosen;
  const label = element("label", { class: isChosen ? "scope-choice chosen" : "scope-choice" }, radio, " ", scopeWords(scope));
  if (!region) return label;
  const look = button("Show", () => showRegion(region), { class: "quiet", "aria-label": `Show ${region.label} on the slide` });
  return element("span", { class: "scope-of-region" }, label, look);
}
