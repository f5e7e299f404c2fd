/**
 * The slide on a canvas, by OpenSeadragon; coordinates are pixels of level 0 everywhere outside this file.
 *
 * Others draw over it in layers of SVG whose unit is the same pixel, and never touch OpenSeadragon's own coordinates.
 */

import { api } from "./api.js";
import { byId, svgElement } from "./elements.js";
import { store } from "./store.js";

const TILE_PX = 256;
const REDUCED_MOTION = window.matchMedia("(prefers-reduced-motion: reduce)");

class Viewer extends EventTarget {
  #osd = null;
  #svg = null;
  #ground = null;
  #slideId = null;
  #size = null;

  start() {
    this.#osd = window.OpenSeadragon({
      element: byId("canvas"),
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "TOP_RIGHT",
      navigatorSizeRatio: 0.16,
      navigatorAutoFade: false,
      navigatorDisplayRegionColor: "#0b4f6c",
      animationTime: REDUCED_MOTION.matches ? 0 : 0.35,
      blendTime: 0,
      maxZoomPixelRatio: 4,
      minZoomImageRatio: 0.1,
      visibilityRatio: 0.2,
      zoomPerClick: 1,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true, scrollToZoom: true },
      gestureSettingsTouch: { pinchRotate: false },
      loadTilesWithAjax: true,
      imageLoaderLimit: 6,
      timeout: 60000,
    });
    // Keys are the page's own (docs/page.md), and turned slides spoil orientation.
    this.#osd.innerTracker.keyHandler = null;
    this.#osd.innerTracker.keyDownHandler = null;
    this.#addLayers();
    for (const name of ["update-viewport", "open", "resize"]) this.#osd.addHandler(name, () => this.#moved());
    for (const name of ["tile-loaded", "tile-load-failed"]) this.#osd.addHandler(name, () => this.#noteOpening(false));
    this.#osd.addHandler("tile-load-failed", ({ tile }) => this.dispatchEvent(new CustomEvent("tile-failed", { detail: tile })));
  }

  /** OpenSeadragon itself, for what this file does not offer; null before start. */
  get osd() {
    return this.#osd;
  }

  /** `{width, height}` of level 0, null while no slide is shown. */
  get size() {
    return this.#size;
  }

  /** Whether a slide is shown, so that there is a view. */
  get isOpen() {
    return Boolean(this.#image());
  }

  get slideId() {
    return this.#slideId;
  }

  /** A layer over the slide, made at the first call: a `g` whose units are pixels of level 0. Later ones lie higher. */
  layer(name) {
    const known = [...this.#ground.children].find((layer) => layer.dataset.layer === name);
    if (known) return known;
    const made = svgElement("g", { dataset: { layer: name } });
    this.#ground.append(made);
    return made;
  }

  /** The place on the slide under a point of the browser's window. */
  slidePoint({ clientX, clientY }) {
    const box = this.#osd.element.getBoundingClientRect();
    const point = new window.OpenSeadragon.Point(clientX - box.left, clientY - box.top);
    const { x, y } = this.#image().viewerElementToImageCoordinates(point);
    return { x, y };
  }

  /** What of the slide is in view: `{x, y, width, height}`. */
  get view() {
    const { x, y, width, height } = this.#image().viewportToImageRectangle(this.#osd.viewport.getBounds(true));
    return { x, y, width, height };
  }

  /** Pixels of level 0 under one CSS pixel of the screen. */
  get slidePxPerScreenPx() {
    return 1 / this.#image().viewportToImageZoom(this.#osd.viewport.getZoom(true));
  }

  /** The same, once the view has come to rest. */
  get targetSlidePxPerScreenPx() {
    return 1 / this.#image().viewportToImageZoom(this.#osd.viewport.getZoom());
  }

  /** Move so that this rectangle fills the view, with a margin around it. */
  show({ x, y, width, height }, margin = 0.1) {
    const wide = new window.OpenSeadragon.Rect(
      x - margin * width,
      y - margin * height,
      width * (1 + 2 * margin),
      height * (1 + 2 * margin),
    );
    this.#osd.viewport.fitBounds(this.#image().imageToViewportRectangle(wide), REDUCED_MOTION.matches);
  }

  /** Move so that nothing but this rectangle is in view. */
  showWithin({ x, y, width, height }) {
    const { x: across, y: down } = this.#osd.viewport.getContainerSize();
    const share = Math.min(width / across, height / down);
    const inner = { width: across * share, height: down * share };
    this.show({ x: x + (width - inner.width) / 2, y: y + (height - inner.height) / 2, ...inner }, 0);
  }

  /** Magnify so that one CSS pixel shows so many pixels of level 0, around the middle of the view. */
  magnify(slidePxPerScreenPx) {
    const zoom = this.#image().imageToViewportZoom(1 / slidePxPerScreenPx);
    this.#osd.viewport.zoomTo(zoom, undefined, REDUCED_MOTION.matches);
    this.#osd.viewport.applyConstraints();
  }

  /** Move by so many CSS pixels of the screen. */
  pan(rightPx, downPx) {
    const by = new window.OpenSeadragon.Point(rightPx, downPx);
    this.#osd.viewport.panBy(this.#osd.viewport.deltaPointsFromPixels(by), REDUCED_MOTION.matches);
    this.#osd.viewport.applyConstraints();
  }

  /** The whole slide. */
  home() {
    this.#osd.viewport.goHome(REDUCED_MOTION.matches);
  }

  /** Show a slide; null for none. */
  open(slide) {
    this.#slideId = slide?.id ?? null;
    this.#size = slide ? { width: slide.width, height: slide.height } : null;
    this.#ground.replaceChildren();
    this.#osd.close();
    this.#noteOpening(Boolean(slide));
    if (!slide) return;
    this.#osd.open({
      tileSource: {
        width: slide.width,
        height: slide.height,
        tileSize: TILE_PX,
        tileOverlap: 0,
        minLevel: 0,
        getTileUrl: (level, x, y) => new URL(`v1/slides/${slide.id}/tiles/${level}/${x}_${y}.jpg`, document.baseURI).href,
      },
      loadTilesWithAjax: true,
      ajaxHeaders: api.headers,
    });
    this.dispatchEvent(new Event("opened"));
  }

  /** Load the tiles that are in view again, with the key of now: earlier ones may have failed. The view stays. */
  loadAgain() {
    this.#osd.setAjaxHeaders(api.headers, true);
    this.#image()?.reset();
  }

  /** Before its first tile there is nothing to see of a slide, which may take a second. */
  #noteOpening(isOpening) {
    this.#osd.element.classList.toggle("is-opening", isOpening);
  }

  #image() {
    return this.#osd?.world.getItemAt(0);
  }

  #addLayers() {
    this.#ground = svgElement("g");
    this.#svg = svgElement("svg", { class: "layers", "aria-hidden": "true" }, this.#ground);
    this.#osd.canvas.append(this.#svg);
  }

  #moved() {
    const image = this.#image();
    if (!image) return;
    const origin = image.imageToViewerElementCoordinates(new window.OpenSeadragon.Point(0, 0));
    const scale = 1 / this.slidePxPerScreenPx;
    this.#svg.style.setProperty("--px", 1 / scale);
    this.#ground.setAttribute("transform", `translate(${origin.x} ${origin.y}) scale(${scale})`);
    this.dispatchEvent(new Event("moved"));
  }
}

export const viewer = new Viewer();

export function startViewer() {
  viewer.start();
  let shownId = null;
  const show = () => {
    const slide = store.get("slide");
    const hasPixels = slide !== null && !store.get("slideGone") && slide.width !== null && slide.vendor !== "features";
    const id = hasPixels ? slide.id : null;
    if (id === shownId) return;
    shownId = id;
    viewer.open(hasPixels ? slide : null);
  };
  for (const name of ["slideId", "slide", "slideGone"]) store.on(name, show);
  api.addEventListener("signed-in", () => viewer.loadAgain());
  store.on("reachable", (reachable) => reachable && viewer.loadAgain());
}
