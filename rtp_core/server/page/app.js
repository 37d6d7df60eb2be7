// Start of the page: wires chat, engine panel, connection and key dialog together.

import { Chat } from "./chat.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Dashboard } from "./dashboard.js";
import { KeyDialog } from "./key.js";
import { StatusBar } from "./status.js";
import { Views } from "./views.js";

const connection = new Connection(show);
const keyDialog = new KeyDialog(() => connection.wake());
const openKey = () => keyDialog.open();
const status = new StatusBar({ onKey: openKey });
const readModel = () => status.model;
const chat = new Chat(new Conversation(), { onKey: openKey, readModel });
const panel = document.getElementById("engine");
const dashboard = new Dashboard(document.getElementById("panels"));
let last = { phase: null };

new Views(drawPanel);
connection.wake();
// On a phone, focus would open the keyboard over the page.
if (matchMedia("(pointer: fine)").matches) chat.composer.focus();

function show(report) {
  status.update(report);
  chat.setReady(report.phase === "ready");
  // Ask once; when dismissed, the banner keeps a button.
  if (report.phase === "locked" && last.phase !== "locked") keyDialog.open();
  last = report;
  drawPanel();
}

// Nothing is drawn while the panel is hidden. A lost server leaves its last numbers in place.
function drawPanel() {
  if (last.stats && last.phase !== "unreachable" && !panel.hidden) dashboard.update(last);
}
