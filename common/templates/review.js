// The reading room: what a reader sees and does. The scans are in #room, their pictures in #p0, #p1, ...
"use strict";
const room = JSON.parse(document.getElementById("room").textContent), $ = id => document.getElementById(id);
const KEY = "deauville-review-" + room.cohort, KEPT = 24, ROW = 26, BUTTONS = [1, 2, 3, 4, 5];
const make = (tag, text = "", more = {}) => Object.assign(document.createElement(tag), {textContent: text}, more);
const percent = value => value.toFixed(2), counted = (number, one) => `${number} ${one}${number == 1 ? "" : "s"}`;
const shuffled = text => [...room.cohort + text].reduce((hash, c) => Math.imul(hash ^ c.codePointAt(0), 16777619) >>> 0, 2166136261);
room.scans.forEach((scan, k) => Object.assign(scan, {place: k, random: shuffled(scan.id),
  error: scan.target === null ? null : Math.abs(scan.prob - scan.target),
  wrong: scan.target !== null && (scan.prob >= 0.5) != scan.target}));

// ---- what is kept in the browser: {reader, readers: {name: {opened, readings: {scan: {ds, comment, time, blind}}}}}
let store = {reader: "", readers: {}}, kept = true;
try { store = JSON.parse(localStorage.getItem(KEY)) ?? store; } catch { kept = false; }
const mine = () => store.readers[store.reader] ??= {opened: "", readings: {}};
const reading = scan => mine().readings[scan.id] ?? {};
function keep() {
  try { localStorage.setItem(KEY, JSON.stringify(store)); kept = true; } catch { kept = false; }
}

let blind = true, heat = true, dark = false, black = room.black, shown = [], at = 0, unsaved = 0;
let zoom = 1, pan = {y: 0, x: []}, views = [];

// ---- which scans, and in what order
const PLAIN = [["shuffled", scan => scan.random], ["as in the manifest", scan => scan.place], ["my score", scan => reading(scan).ds ?? 9]];
const OPEN = [["error, largest first", scan => -(scan.error ?? -1)], ["probability, highest first", scan => -scan.prob],
  ["disagreement, largest first", scan => -(scan.sd ?? -1)], ["target", scan => scan.target ?? 9]];
const WHICH = [["all", () => true], ["not read", scan => !reading(scan).ds], ["read", scan => reading(scan).ds],
  ["with my comment", scan => reading(scan).comment]];
const WHICH_OPEN = [["wrong at 0.5", scan => scan.wrong],
  ["false negative", scan => scan.wrong && scan.target], ["false positive", scan => scan.wrong && !scan.target],
  ["my score against the target", scan => reading(scan).ds && scan.target !== null && (reading(scan).ds > 3) != scan.target],
  ["my score against the network", scan => reading(scan).ds && (reading(scan).ds > 3) != (scan.prob >= 0.5)]];
const orders = () => blind ? PLAIN : [...PLAIN, ...OPEN, ...room.columns.map((name, k) => [name, scan => scan.values[k]])];
const choices = () => blind ? WHICH : [...WHICH, ...WHICH_OPEN];
const isNumber = text => text !== "" && isFinite(text);
function compare(a, b) {
  if (isNumber(a) && isNumber(b)) return a - b;
  return (a === "") - (b === "") || isNumber(b) - isNumber(a) || String(a).localeCompare(b);
}
function named(scan, name) {  // a column's value, by its name in any case; undefined if there is none
  const known = {scan_id: scan.id};
  if (!blind) Object.assign(known, {probability: scan.prob, target: scan.target, sd: scan.sd, error: scan.error},
    Object.fromEntries(room.columns.map((column, k) => [column.toLowerCase(), scan.values[k]])));
  known.score = reading(scan).ds ?? ""; known.comment = reading(scan).comment ?? "";
  return known[name.trim().toLowerCase()];
}
function found(scan, text) {
  const asked = text.match(/^([^<>=]+)(<=|>=|<|>|=)(.*)$/), value = asked && named(scan, asked[1]);
  if (asked && value !== undefined && value !== null) {
    const order = compare(String(value), asked[3].trim()), sign = asked[2];
    if (sign == "=") return String(value).toLowerCase() == asked[3].trim().toLowerCase() || order === 0;
    return value !== "" && (sign[0] == "<" ? order < 0 : order > 0) || sign.length == 2 && order === 0;
  }
  if (asked) return false;
  const words = [scan.id, reading(scan).comment ?? "", ...blind ? [] : scan.values];
  return words.some(word => word.toLowerCase().includes(text.toLowerCase()));
}
function choose(list, select) { return list.find(([name]) => name == select.value) ?? list[0]; }
function fill(select, list) {
  const was = select.value;
  select.replaceChildren(...list.map(([name]) => make("option", name)));
  if (list.some(([name]) => name == was)) select.value = was;
}
function arrange(from) {  // and go to that place, or stay at the scan
  const scan = shown[at], key = choose(orders(), $("order"))[1], wanted = choose(choices(), $("which"))[1];
  const text = $("filter").value.trim();
  shown = room.scans.filter(each => wanted(each) && (!text || found(each, text)));
  const keys = new Map(shown.map(each => [each, key(each)]));
  shown.sort((a, b) => compare(keys.get(a), keys.get(b)) || a.place - b.place);
  $("list").scrollTop = 0;
  go(from ?? Math.max(0, shown.indexOf(scan)));
}

// ---- the list: only the rows in view are in the page
function drawList() {
  const first = Math.max(0, Math.floor($("list").scrollTop / ROW) - 4), count = Math.ceil($("list").clientHeight / ROW) + 8;
  $("rows").style.height = shown.length * ROW + "px";
  $("rows").replaceChildren(...shown.slice(first, first + count).map((scan, k) => {
    const {ds, comment} = reading(scan), row = make("div", "", {className: "row", title: scan.id});
    row.append(make("b", ds ? "DS" + ds : ""), make("span", scan.id.length > 12 ? "…" + scan.id.slice(-11) : scan.id), make("span", blind ? "" : percent(scan.prob)
      + (scan.sd === null ? "" : " ± " + percent(scan.sd)), {className: scan.wrong ? "wrong" : ""}),
      make("span", blind || scan.target === null ? (comment ? "…" : "") : (scan.target ? "4–5" : "1–3")));
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", first + k == at);
    row.style.top = (first + k) * ROW + "px";
    row.onclick = () => go(first + k);
    return row;
  }));
}
function reveal() {
  const list = $("list"), top = at * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
}

// ---- pictures: unpacked when they are needed, the last ones stay
const unpacked = new Map();
async function unpack(view) {
  if (unpacked.has(view.picture)) return unpacked.get(view.picture);
  const bytes = Uint8Array.from(atob($("p" + view.picture).textContent), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const all = new Uint8Array(await new Response(stream).arrayBuffer()), size = view.rows * view.columns;
  for (let k = view.columns; k < size; k++) all[k] += all[k - view.columns];
  unpacked.set(view.picture, {levels: all.subarray(0, size), cells: all.subarray(size)});
  if (unpacked.size > 2 * KEPT) unpacked.delete(unpacked.keys().next().value);
  return unpacked.get(view.picture);
}
const suv = level => room.most * (level / room.levels) ** 2;
function paint(view, {levels, cells}) {  // the view at its own size, window and heat map applied
  const {rows, columns} = view, image = new ImageData(columns, rows), out = image.data, step = room.step;
  const across = Math.ceil(columns / step), down = Math.ceil(rows / step), body = Math.sqrt(room.body / room.most) * room.levels;
  const grey = Array.from({length: room.levels + 1}, (_, level) => {
    const share = Math.min(suv(level) / black, 1);
    return 255 * (dark ? share : 1 - share);
  });
  for (let r = 0, k = 0; r < rows; r++) {
    const y = Math.min(Math.max((r + 0.5) / step - 0.5, 0), down - 1), y0 = Math.floor(y), y1 = Math.min(y0 + 1, down - 1), fy = y - y0;
    for (let c = 0; c < columns; c++, k++) {
      const shade = grey[levels[k]];
      let red = shade, green = shade, blue = shade;
      if (heat && !blind && levels[k] >= body) {
        const x = Math.min(Math.max((c + 0.5) / step - 0.5, 0), across - 1), x0 = Math.floor(x), x1 = Math.min(x0 + 1, across - 1), fx = x - x0;
        const upper = cells[y0 * across + x0] * (1 - fx) + cells[y0 * across + x1] * fx;
        const lower = cells[y1 * across + x0] * (1 - fx) + cells[y1 * across + x1] * fx;
        const [R, G, B, A] = room.ramp[Math.round(upper * (1 - fy) + lower * fy)], a = A / 255;
        red += (R - red) * a; green += (G - green) * a; blue += (B - blue) * a;
      }
      out[4 * k] = red; out[4 * k + 1] = green; out[4 * k + 2] = blue; out[4 * k + 3] = 255;
    }
  }
  const canvas = new OffscreenCanvas(columns, rows);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
let turn = 0, started = 0;
async function draw(repaint = true) {
  const scan = shown[at], own = ++turn;
  if (!scan) { views = []; $("viewer").replaceChildren(make("p", "No scan is chosen.")); return; }
  if (!views.length || views.scan !== scan) {
    const data = await Promise.all(scan.views.map(unpack));
    if (own != turn) return;  // another scan was chosen meanwhile
    views = scan.views.map((view, k) => ({view, data: data[k]}));
    views.scan = scan;
    pan = {y: 0, x: views.map(() => 0)}; zoom = 1; repaint = true;
    $("viewer").replaceChildren(...views.map(each => each.canvas = make("canvas")));
    views.forEach(listen);
  }
  const {width, height} = $("viewer").getBoundingClientRect(), stacked = matchMedia("(max-width: 1000px)").matches;
  const columns = scan.views.reduce((sum, view) => sum + view.columns, 0);
  const tall = Math.max(...scan.views.map(view => view.rows)), scale = Math.max(0.2, Math.min(
    (width - 8 * views.length) / columns, ((stacked ? innerHeight * 0.62 : height) - 4) / tall));
  for (const [k, each] of views.entries()) {
    if (repaint || !each.painted) each.painted = paint(each.view, each.data);
    place(each, k, scale, tall);
  }
  document.body.dataset.drawn = scan.id;
  document.body.dataset.ms = (performance.now() - started).toFixed(1);
  for (const near of [shown[at + 1], shown[at - 1]]) near?.views.forEach(unpack);
}
function place({view, canvas, painted}, k, scale, tall) {
  const dpr = devicePixelRatio, width = view.columns * scale, height = tall * scale, pen = canvas.getContext("2d");
  Object.assign(canvas, {width: Math.round(width * dpr), height: Math.round(height * dpr), scale});
  Object.assign(canvas.style, {width: width + "px", height: height + "px"});
  const s = scale * zoom * dpr;
  pen.fillStyle = dark ? "#000" : "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingEnabled = true;
  pen.drawImage(painted, (canvas.width - view.columns * s) / 2 + pan.x[k] * s, (zoom - 1) * -canvas.height / 2 + pan.y * s,
    view.columns * s, view.rows * s);
  pen.fillStyle = pen.strokeStyle = dark ? "#ddd" : "#222";
  pen.font = `${12 * dpr}px system-ui, sans-serif`; pen.textBaseline = "top";
  pen.fillText(view.sides[0], 5 * dpr, 5 * dpr);
  pen.textAlign = "right"; pen.fillText(view.sides[1], canvas.width - 5 * dpr, 5 * dpr);
  pen.textAlign = "center"; if (width > 250) pen.fillText(view.name, canvas.width / 2, 5 * dpr);
  if (room.spacing && !k) {
    const long = 100 / room.spacing * s, low = canvas.height - 12 * dpr;
    pen.lineWidth = 2 * dpr; pen.beginPath(); pen.moveTo(8 * dpr, low); pen.lineTo(8 * dpr + long, low); pen.stroke();
    pen.textAlign = "left"; pen.textBaseline = "bottom"; pen.fillText("10 cm", 8 * dpr, low - 3 * dpr);
  }
}
function magnify(factor) { zoom = Math.min(12, Math.max(1, zoom * factor)); if (zoom == 1) whole(); draw(false); }
function whole() { zoom = 1; pan.y = 0; pan.x.fill(0); }
function setWindow(value) { black = Math.min(room.most, Math.max(1, Math.round(2 * value) / 2)); state(); draw(); }
function listen({canvas}, k) {
  let held = null;
  canvas.onwheel = event => { event.preventDefault(); magnify(Math.exp(-event.deltaY / 400)); };
  canvas.oncontextmenu = event => event.preventDefault();
  canvas.ondblclick = () => { whole(); draw(false); };
  canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId);
    held = {x: event.clientX, y: event.clientY, window: event.shiftKey || event.button == 2}; };
  canvas.onpointerup = canvas.onpointercancel = () => { held = null; };
  canvas.onpointermove = event => {
    if (!held) return;
    const dx = event.clientX - held.x, dy = event.clientY - held.y;
    if (held.window && Math.abs(dy) < 4) return;
    Object.assign(held, {x: event.clientX, y: event.clientY});
    if (held.window) return setWindow(black + Math.sign(dy) / 2);
    pan.x[k] += dx / canvas.scale / zoom; pan.y += dy / canvas.scale / zoom;
    draw(false);
  };
}

// ---- the scan that is shown
function go(place) {
  leaveComment();
  started = performance.now();
  at = Math.min(Math.max(place, 0), Math.max(shown.length - 1, 0));
  reveal(); drawList(); facts(); state(); draw();
}
function facts() {
  const scan = shown[at], {ds, comment, time, blind: unseen} = scan ? reading(scan) : {};
  $("name").textContent = scan?.id ?? "";
  for (const button of $("scores").children) button.setAttribute("aria-pressed", button.textContent == ds);
  $("stamp").textContent = ds ? `your score of ${time.slice(0, 16).replace("T", " ")} UTC, ${unseen ? "blind" : "not blind"}` : "no score yet: keys 1 to 5";
  $("comment").value = comment ?? "";
  if (blind || !scan) {
    $("facts").replaceChildren(make("p", scan ? "Label, score and heat map are hidden." : "", {className: "small"}));
    return;
  }
  const list = make("dl"), add = (name, text) => list.append(make("dt", name), make("dd", text));
  add("P(DS 4–5)", percent(scan.prob) + (scan.sd === null ? "" : ` ± ${percent(scan.sd)} between models`));
  for (const view of scan.views) add(view.name, percent(view.prob));
  add("target", scan.target === null ? "unknown" : scan.target ? "DS 4–5" : "DS 1–3");
  if (scan.wrong) add("at 0.5", scan.target ? "false negative" : "false positive");
  if (scan.sites) add("site", scan.sites);
  const models = scan.models.split(", ");
  add("map of", models.length > 3 ? `${models.length} models` : scan.models);
  room.columns.forEach((name, k) => { if (scan.values[k]) add(name, scan.values[k]); });
  $("facts").replaceChildren(list);
}
function state() {
  const readings = Object.values(mine().readings), scored = readings.filter(each => each.ds).length;
  const bare = readings.length - scored;
  $("count").textContent = `${shown.length ? at + 1 : 0} of ${shown.length}`
    + (shown.length < room.scans.length ? ` (${room.scans.length} in all)` : "") + `; ${room.scans.filter(scan => reading(scan).ds).length} read`;
  $("blind").setAttribute("aria-pressed", blind);
  $("heat").setAttribute("aria-pressed", heat && !blind);
  $("heat").disabled = blind;
  $("state").replaceChildren(make("span", (kept ? "Readings are kept in this browser." : "This browser keeps no readings: save the CSV before you close the page.")
    + (unsaved ? ` ${unsaved} since the last CSV.` : "") + (bare ? ` ${counted(bare, "comment")} without a score: not in the CSV.` : "")
    + (blind && mine().opened ? ` Blind mode was left on ${mine().opened.slice(0, 10)}: readings from then on count as not blind.` : ""),
    {className: kept ? "" : "loud"}));
  $("source").textContent = `SUV 0 to ${black} (black)` + (blind ? "" : `. Heat: ${room.source}, mean of the models; darkest red at ${Number(room.heat).toPrecision(2)}`) + ". ? for keys.";
}
function note(change) {
  const scan = shown[at];
  if (!scan) return;
  if (!blind) mine().opened ||= new Date().toISOString();
  const next = {...reading(scan), ...change};
  if ("ds" in change) Object.assign(next, {time: new Date().toISOString(), blind: mine().opened ? 0 : 1});
  if (!next.ds && !next.comment) delete mine().readings[scan.id]; else mine().readings[scan.id] = next;
  unsaved++;
  keep(); drawList(); facts(); state();
}
function leaveComment() {
  const text = $("comment").value.replace(/\s+/g, " ").trim(), scan = shown[at];
  if (scan && $("name").textContent == scan.id && text != (reading(scan).comment ?? "")) note({comment: text});
}
function setBlind(value) {
  blind = value;
  if (!blind && !mine().opened) { mine().opened = new Date().toISOString(); keep(); }
  if (blind) $("filter").value = "";
  fill($("order"), orders()); fill($("which"), choices());
  arrange();
}

// ---- the CSV
const FIELDS = ["scan_id", "deauville", "comment", "reader", "time", "blind"];
function field(value) {  // no formula for a spreadsheet, and always in quotes
  const text = String(value ?? "");
  return '"' + (/^[=+\-@\t\r']/.test(text) ? "'" + text : text).replaceAll('"', '""') + '"';
}
function csv() {
  const rows = room.scans.filter(scan => reading(scan).ds).map(scan => {
    const {ds, comment, time, blind} = reading(scan);
    return [scan.id, ds, comment, store.reader, time, blind].map(field).join(",");
  });
  return "\ufeff" + [FIELDS.join(","), ...rows].join("\n") + "\n";
}
function save() {
  leaveComment();
  if (!store.reader) { $("reader").focus(); return say("Write the reader's name first."); }
  const link = make("a", "", {href: URL.createObjectURL(new Blob([csv()], {type: "text/csv"})),
    download: `readings_${store.reader.replace(/[^\p{L}\p{N}.-]+/gu, "_")}.csv`});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  unsaved = 0;
  say("Saved.");
}
function parse(text) {  // a CSV with quotes, as it is written here or by a spreadsheet
  const rows = [[""]], separator = text.split("\n", 1)[0].includes(";") ? ";" : ",";
  let quoted = false;
  for (let k = 0; k < text.length; k++) {
    const c = text[k], row = rows.at(-1);
    if (quoted) {
      if (c != '"') row[row.length - 1] += c; else if (text[k + 1] == '"') { row[row.length - 1] += c; k++; } else quoted = false;
    } else if (c == '"') quoted = true; else if (c == separator) row.push(""); else if (c == "\n") rows.push([""]);
    else if (c != "\r") row[row.length - 1] += c;
  }
  return rows.filter(row => row.some(Boolean)).map(row => row.map(cell => cell.replace(/^'(?=[=+\-@\t\r'])/, "")));
}
function load(text) {
  if (Object.keys(store.readers[""]?.readings ?? {}).length) { $("reader").focus(); return say("Write the reader's name first."); }
  const [head = [], ...rows] = parse(text.replace(/^\ufeff/, "")), where = Object.fromEntries(FIELDS.map(name => [name, head.indexOf(name)]));
  if (["scan_id", "deauville", "reader"].some(name => where[name] < 0)) return say("Not loaded: a CSV of this page has scan_id, deauville and reader.");
  const known = new Set(room.scans.map(scan => scan.id));
  let taken = 0, unknown = 0, name = "";
  for (const row of rows) {
    const of = column => row[where[column]] ?? "", ds = Number(of("deauville")), reader = of("reader").trim(), id = of("scan_id");
    if (!known.has(id) || !BUTTONS.includes(ds) || !reader) { unknown++; continue; }
    const them = store.readers[reader] ??= {opened: "", readings: {}}, old = them.readings[id], time = of("time") || "1970-01-01T00:00:00.000Z";
    if (!old?.ds || old.time < time) them.readings[id] = {ds, comment: of("comment"), time, blind: of("blind") == "1" ? 1 : 0};
    if (of("blind") != "1") them.opened ||= time;
    taken++; name = reader;
  }
  if (taken) switchReader(name);
  say(`Loaded: ${counted(taken, "reading")}` + (unknown ? `; left out, of no scan here or without a score from 1 to 5: ${counted(unknown, "row")}` : "") + ".");
}
function say(text) { state(); $("state").prepend(make("b", text + " ")); }

// ---- readers, buttons, keys
function switchReader(name) {
  const left = name ? adoptUnnamed(name) : 0;
  store.reader = name;
  $("reader").value = name;
  if (!blind) mine().opened ||= new Date().toISOString();
  keep(); arrange();
  if (left) say(`Left out, of scans that ${name} had read before: ${counted(left, "reading")}.`);
}
function adoptUnnamed(name) {  // what was read before a name was written is this reader's -> how many stay as they were
  const unnamed = store.readers[""], them = store.readers[name] ??= {opened: "", readings: {}};
  let left = 0;
  for (const [id, each] of Object.entries(unnamed?.readings ?? {})) {
    const old = them.readings[id];
    if (old?.ds) left++; else them.readings[id] = {...each, comment: each.comment || old?.comment};
  }
  them.opened ||= unnamed?.opened ?? "";
  delete store.readers[""];
  return left;
}
const KEYS = {j: () => go(at + 1), ArrowRight: () => go(at + 1), ArrowDown: () => go(at + 1), k: () => go(at - 1),
  ArrowLeft: () => go(at - 1), ArrowUp: () => go(at - 1), Home: () => go(0), End: () => go(shown.length - 1),
  n: () => { const next = [...shown.keys()].find(k => k > at && !reading(shown[k]).ds); next === undefined ? say("No scan without your score comes after this one.") : go(next); },
  m: () => { if (!blind) { heat = !heat; state(); draw(); } }, b: () => setBlind(!blind), c: () => $("comment").focus(),
  s: save, i: () => { dark = !dark; draw(); }, r: () => { whole(); draw(false); }, "+": () => magnify(1.25), "=": () => magnify(1.25),
  "-": () => magnify(0.8), "[": () => setWindow(black - (black > 3 ? 1 : 0.5)), "]": () => setWindow(black + (black >= 3 ? 1 : 0.5)),
  "/": () => $("filter").focus(), "?": () => $("help").showModal(), "0": () => note({ds: null}), Delete: () => note({ds: null})};
for (const ds of BUTTONS) {
  KEYS[ds] = () => note({ds});
  $("scores").append(make("button", ds, {onclick: () => note({ds}), title: "Deauville " + ds}));
}
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const field = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (field) {
    if (event.key == "Escape" || event.key == "Enter" && !event.shiftKey) { event.preventDefault(); event.target.blur(); }
    return;
  }
  const act = KEYS[event.key];
  if (act) { event.preventDefault(); act(); }
});
$("blind").onclick = KEYS.b; $("heat").onclick = KEYS.m; $("save").onclick = save; $("ask").onclick = KEYS["?"];
$("load").onclick = () => $("file").click();
$("file").onchange = async event => { const file = event.target.files[0]; if (file) load(await file.text()); event.target.value = ""; };
$("reader").onchange = () => switchReader($("reader").value.trim());
$("comment").onblur = leaveComment;
$("order").onchange = $("which").onchange = event => { arrange(0); event.target.blur(); };
$("filter").oninput = () => arrange(0);
$("list").onscroll = drawList;
new ResizeObserver(() => draw(false)).observe($("viewer"));
addEventListener("pagehide", leaveComment);
addEventListener("beforeprint", () => {
  const read = room.scans.filter(scan => reading(scan).ds || reading(scan).comment), head = make("tr"), open = !blind;
  head.append(...["Scan", "DS", "Blind", "Comment", ...open ? ["P(DS 4–5)", "Target"] : []].map(name => make("th", name)));
  $("printed").replaceChildren(make("caption", `Readings of ${store.reader || "an unnamed reader"}: ${read.length}`), head, ...read.map(scan => {
    const {ds, comment, blind} = reading(scan), row = make("tr");
    row.append(...[scan.id, ds ?? "", ds ? (blind ? "yes" : "no") : "", comment ?? "", ...open ? [percent(scan.prob), scan.target ?? ""] : []].map(text => make("td", text)));
    return row;
  }));
});
if (!("DecompressionStream" in window)) $("viewer").append(make("p", "This browser is too old to unpack the pictures: use a current Chromium, Edge, Firefox or Safari.", {className: "loud"}));
$("reader").value = store.reader;
setBlind(true);
document.body.dataset.loaded = Math.round(performance.now());
