// The editor: draws what the server computes, and turns what people do into scenes. This file joins its parts.

import { blendSoon, listenToBlend } from "/static/blend.js";
import { listenToControls, refreshControls } from "/static/controls.js";
import { $ } from "/static/dom.js";
import { listenToDonors } from "/static/donors.js";
import { listenToFace, refreshFace } from "/static/face.js";
import { listenToFiles } from "/static/files.js";
import { listenToHistory, refreshHistory } from "/static/history.js";
import { listenToKeys } from "/static/keys.js";
import { guarded } from "/static/messages.js";
import { fresh, listenToNetwork } from "/static/network.js";
import { listenToPhoto, openPhoto } from "/static/photo.js";
import { afterChange, afterShow } from "/static/pictures.js";
import { listenToPointer } from "/static/pointer.js";
import { listenToRegions } from "/static/regions.js";
import { listenToSession, openSession } from "/static/session.js";
import { dropFiles } from "/static/widgets.js";

afterChange(refreshFace, refreshControls);
afterShow(refreshFace, refreshControls, refreshHistory, blendSoon);

listenToNetwork();
listenToHistory();
listenToFace();
listenToRegions();
listenToControls();
listenToDonors();
listenToPointer();
listenToBlend();
listenToPhoto();
listenToSession();
listenToFiles();
listenToKeys();
dropFiles(openPhoto, openSession);
$("alert-close").addEventListener("click", () => { $("alert").hidden = true; });
$("help-open").addEventListener("click", () => $("help").showModal());

guarded(fresh)(null);
