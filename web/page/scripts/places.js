/** Where the tiles lie that the asked model was given of the chosen slide, as `GET …/places` says. */

import { api } from "./api.js";
import { boxAround } from "./geometry.js";
import { store } from "./store.js";

const kept = new Map();

export function startPlaces() {
  for (const name of ["slide", "model"]) store.on(name, load);
  store.on("slideId", () => store.set("places", null));
  store.on("reachable", (reachable) => reachable && load());
}

/** The box around the tissue that the model was given, by which answers name places; null while nobody knows it. */
export function tissueBox(places) {
  const corners = places && boxAround(places.coords);
  return corners && { ...corners, width: corners.width + places.side_px, height: corners.height + places.side_px };
}

async function load() {
  const [slide, model] = [store.get("slide"), store.get("model")];
  const encoding = model && slide?.encodings?.find((it) => it.model === model.id);
  const key = encoding?.status === "ready" ? `${slide.id} ${encoding.encoder_id}` : null;
  if (key && !kept.has(key)) {
    const query = new URLSearchParams({ model: model.id });
    kept.set(key, await api.get(`/v1/slides/${slide.id}/places?${query}`).catch(() => null));
    if (kept.get(key) === null) kept.delete(key);
  }
  const stillShown = store.get("slide")?.id === slide?.id && store.get("model")?.id === model?.id;
  if (stillShown) store.set("places", (key && kept.get(key)) ?? null);
}
