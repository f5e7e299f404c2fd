/** The notice of the model that is asked, above everything, before the first question and for as long as the page is. */

import { byId } from "./elements.js";
import { store } from "./store.js";

export function startNotice() {
  store.on("model", (model) => {
    byId("notice-model").textContent = `${model.title}. `;
    byId("notice-text").textContent = model.notice;
  });
}
