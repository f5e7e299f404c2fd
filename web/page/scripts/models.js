/** The models of this server, and which of them is asked. */

import { api } from "./api.js";
import { byId, element } from "./elements.js";
import { store } from "./store.js";

/** Load the models; the one that was chosen stays chosen. */
export async function loadModels() {
  const { data } = await api.get("/v1/models");
  store.set("models", data);
  const chosen = store.get("model");
  store.set("model", data.find((model) => model.id === chosen?.id) ?? data[0]);
}

/** A choice of models where there are several. */
export function startModels() {
  store.on("models", (models) => {
    byId("menu").querySelector(".model-choice")?.remove();
    if (models.length < 2) return;
    const choice = element(
      "select",
      { "aria-label": "Model that answers", onchange: () => store.set("model", models[choice.selectedIndex]) },
      models.map((model) => element("option", { value: model.id, text: model.title })),
    );
    choice.value = store.get("model")?.id ?? models[0].id;
    byId("menu").prepend(element("span", { class: "model-choice" }, choice));
  });
  store.on("reachable", (reachable) => {
    if (reachable) loadModels().catch(() => {});
  });
}
