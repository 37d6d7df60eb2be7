// Start of the page: wires chat, engine panel, connection and dialogs together.

import { Chat } from "./chat.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Dashboard } from "./dashboard.js";
import { KeyDialog } from "./key.js";
import { Shortcuts } from "./shortcuts.js";
import { StatusBar } from "./status.js";
import { Views } from "./views.js";

const connection = new Connection(show);
const keyDialog = new KeyDialog(() => connection.wake());
const onKey = () => keyDialog.open();
const status = new StatusBar({ onKey });
const chat = new Chat(new Conversation(), { onKey, onTimeline, readModel: () => status.model });
const panel = document.getElementById("engine");
const dashboard = new Dashboard(document.getElementById("panels"));
let last = { phase: null };
let wanted = null; // id of a request to show as soon as the panel has it

const views = new Views(drawPanel);
new Shortcuts({
  ".": () => chat.settings.show(!chat.settings.open),
  "\\": () => views.next(),
});
connection.wake();
// On a phone, focus would open the keyboard over the page.
if (matchMedia("(pointer: fine)").matches) chat.composer.focus();

function show(report) {
  status.update(report);
  chat.update(report);
  // Ask once; when dismissed, the banner keeps a button.
  if (report.phase === "locked" && last.phase !== "locked") keyDialog.open();
  last = report;
  drawPanel();
}

// Nothing is drawn while the panel is hidden. A lost server leaves its last numbers in place.
function drawPanel() {
  if (!last.stats || last.phase === "unreachable" || panel.hidden) return;
  // First filled, then shown: nothing moves under the reader's eyes.
  dashboard.update(last);
  dashboard.show();
  if (wanted && dashboard.requests.show(wanted)) wanted = null;
}

function onTimeline(id) {
  wanted = id;
  if (panel.hidden) views.choose("engine"); // draws the panel
  else drawPanel();
}
