/** The regions that were drawn on each slide while the page was open, or that its conversations are about: R1, R2, … */

import { api } from "./api.js";
import { store, WHOLE_SLIDE } from "./store.js";

const bySlide = new Map();
const asked = new Set();

export function startRegions() {
  store.on("slideId", show);
  store.on("thread", (thread) => {
    thread?.addEventListener("change", () => nameRegionsOf(thread));
    if (thread) nameRegionsOf(thread);
  });
}

/** Draw a region on a slide, `{rectangle}` or `{polygon}`: the next question is about it. Throws as the API. */
export async function drawRegion(slideId, model, shape) {
  const drawn = await api.json("POST", `/v1/slides/${slideId}/regions`, { body: { ...shape, model } });
  const region = note(slideId, drawn);
  if (store.get("slideId") === slideId) store.set("scope", scopeOf(region));
  return region;
}

/** What a question about a region is about; without one, the slide. */
export function scopeOf(region) {
  if (!region) return WHOLE_SLIDE;
  const { region_id, tiles, area_mm2, label } = region;
  return { kind: "region", region_id, tiles, area_mm2, label };
}

function note(slideId, { region_id, tiles, area_mm2, polygon }) {
  const known = bySlide.get(slideId) ?? [];
  const same = known.find((it) => it.region_id === region_id);
  if (same) return same;
  const region = { region_id, tiles, area_mm2, polygon, label: `R${known.length + 1}` };
  bySlide.set(slideId, [...known, region]);
  if (store.get("slideId") === slideId) show();
  return region;
}

function show() {
  store.set("regions", bySlide.get(store.get("slideId")) ?? []);
}

/** Answers of an earlier visit name regions by their ids; where the slide still has them, they are shown again. */
async function nameRegionsOf(thread) {
  for (const answer of thread.answers) {
    if (answer.scope?.kind !== "region" || answer.scope.label) continue;
    const region = await find(thread.slideId, answer);
    if (region && !answer.scope.label) answer.note({ scope: { ...answer.scope, label: region.label } });
  }
}

async function find(slideId, { scope, model }) {
  const known = (bySlide.get(slideId) ?? []).find((it) => it.region_id === scope.region_id);
  if (known || asked.has(scope.region_id)) return known;
  asked.add(scope.region_id);
  const query = new URLSearchParams({ model });
  const drawn = await api.get(`/v1/slides/${slideId}/regions/${scope.region_id}?${query}`).catch(() => null);
  return drawn && note(slideId, drawn);
}
