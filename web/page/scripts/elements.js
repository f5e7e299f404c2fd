/** DOM made of elements and text alone: what a server, a model or a file name says is never read as markup. */

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`The page has no element ${id}.`);
  return found;
}

/**
 * An element. `properties` are attributes; `class`, `text` and `dataset` as one expects, `on…` listeners, and true or
 * false an attribute that is there or not. Children that are null or false are left out.
 */
export function element(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svgElement(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

/** A button that does something. */
export function button(text, onclick, properties = {}) {
  return element("button", { type: "button", text, onclick, ...properties });
}

/** A moment of the API as people write it, in their own time zone. */
export function momentElement(moment) {
  const date = new Date(moment);
  const sameDay = date.toDateString() === new Date().toDateString();
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const day = date.toLocaleDateString([], { year: "numeric", month: "short", day: "numeric" });
  return element("time", { datetime: date.toISOString(), text: sameDay ? time : `${day}, ${time}` });
}

function filled(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "class") made.setAttribute("class", value);
    else if (name === "dataset") Object.assign(made.dataset, value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}
