/** Joins the parts of the page. Each part listens to the store (store.js) and shows what it is about. */

import { startAbilities } from "./abilities.js";
import { api } from "./api.js";
import { startAskBox } from "./ask_box.js";
import { loadCaller, startCaller } from "./caller.js";
import { startConnection } from "./connection.js";
import { startConversations } from "./conversations.js";
import { startCrosshair } from "./crosshair.js";
import { startEvidenceLayer } from "./evidence_layer.js";
import { startEvidencePanel } from "./evidence_panel.js";
import { startFeedback } from "./feedback.js";
import { startInstruments } from "./instruments.js";
import { startKeys } from "./keys.js";
import { startLevelsPanel } from "./levels_panel.js";
import { startLongConversations } from "./long_conversations.js";
import { startMeasureTool } from "./measure_tool.js";
import { loadModels, startModels } from "./models.js";
import { startNavigation } from "./navigation.js";
import { startNotice } from "./notice.js";
import { startPlaceLinks } from "./place_links.js";
import { startPlaces } from "./places.js";
import { startRegionTool } from "./region_tool.js";
import { startRegions } from "./regions.js";
import { startRegionsLayer } from "./regions_layer.js";
import { startReport } from "./report.js";
import { startReports } from "./reports.js";
import { startScopeSwitch } from "./scope_switch.js";
import { startSignIn } from "./sign_in.js";
import { startSlideAbout } from "./slide_about.js";
import { startSlideList } from "./slide_list.js";
import { startSlideState } from "./slide_state.js";
import { chooseSlide, loadSlides, startSlides } from "./slides.js";
import { startSpoken } from "./spoken.js";
import { store } from "./store.js";
import { startSureness } from "./sureness.js";
import { startThreadView } from "./thread_view.js";
import { startThreads } from "./threads.js";
import { startTilesLayer } from "./tiles_layer.js";
import { startToolbar } from "./toolbar.js";
import { startToolSays } from "./tool_says.js";
import { startUploads } from "./uploads.js";
import { startViewer } from "./viewer.js";
import { startViews } from "./views.js";

const PARTS = [
  startViews,
  startSignIn,
  startConnection,
  startCaller,
  startNotice,
  startModels,
  startAbilities,
  startThreads,
  startThreadView,
  startConversations,
  startLongConversations,
  startSpoken,
  startSureness,
  startFeedback,
  startSlides,
  startSlideList,
  startSlideState,
  startSlideAbout,
  startUploads,
  startViewer,
  startToolSays,
  startToolbar,
  startNavigation,
  startRegions,
  startPlaces,
  startScopeSwitch,
  startRegionTool,
  startMeasureTool,
  startTilesLayer,
  startLevelsPanel,
  startPlaceLinks,
  startRegionsLayer,
  startEvidenceLayer,
  startEvidencePanel,
  startKeys,
  startCrosshair,
  startInstruments,
  startReport,
  startReports,
  startAskBox,
];

for (const start of PARTS) start();

/** The chosen slide stands behind # in the address, which browsers do not send: a reload comes back to it. */
function rememberSlide() {
  store.on("slideId", (id) => history.replaceState(null, "", id ? `#${id}` : "#"));
}

async function begin() {
  await loadModels();
  loadCaller().catch(() => {}); // until it is known, the page is there to look at and to ask
  await loadSlides();
  const named = window.location.hash.slice(1);
  const [newest] = store.get("slides");
  rememberSlide();
  if (/^[0-9a-f]{64}$/.test(named)) await chooseSlide(named);
  else if (newest) await chooseSlide(newest.id);
}

/** Until it succeeds: the server may still be starting. */
async function beginWhenPossible() {
  try {
    await begin();
  } catch {
    store.on("reachable", (reachable) => reachable && !store.get("model") && begin().catch(() => {}));
  }
}

api.addEventListener("signed-in", () => {
  if (store.get("model")) loadSlides().catch(() => {});
});

beginWhenPossible();
