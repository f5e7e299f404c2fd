/** Small pictures of slides, each fetched once: they need the key in a header, which an `img` does not send. */

import { api } from "./api.js";
import { element } from "./elements.js";

const MAX_PX = 128;
const pictures = new Map();

/** An image of the slide, which appears when it is there; an empty frame where there is none. */
export function thumbnail(slideId) {
  const image = element("img", { class: "thumbnail", alt: "", hidden: true });
  const frame = element("span", { class: "thumbnail-frame" }, image);
  picture(slideId).then(
    (url) => {
      image.src = url;
      image.hidden = false;
    },
    () => {},
  );
  return frame;
}

function picture(slideId) {
  if (!pictures.has(slideId)) {
    const fetched = api
      .blob(`/v1/slides/${slideId}/thumbnail?max_px=${MAX_PX}`)
      .then((blob) => URL.createObjectURL(blob));
    fetched.catch(() => pictures.delete(slideId)); // another try when it is shown again
    pictures.set(slideId, fetched);
  }
  return pictures.get(slideId);
}
