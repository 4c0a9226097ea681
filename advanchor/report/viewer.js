// Opens a concept in a window: its pictures large, base and erased beside, over or after one another.
"use strict";
const viewer = document.querySelector("#viewer"), stage = viewer.querySelector(".stage"), views = viewer.querySelector(".views");
const place = viewer.querySelector(".place"), range = viewer.querySelector(".modes input"), strip = viewer.querySelector(".strip");
const GAP = 4, COLUMNS = 8;  // of a sheet: two rows of pictures, base above erased, captions at the left
const FLICKER_MS = 700, still = matchMedia("(prefers-reduced-motion: reduce)");
let opened = null, home = null, pairs = [], pair = null, ticking = 0;

// --- sheets and what is on them

async function sheet(image) {
  const loaded = new Image();
  loaded.src = image.getAttribute("src");
  await loaded.decode();
  const step = (loaded.naturalHeight - GAP) / 2, count = Math.min(COLUMNS, Math.floor((loaded.naturalWidth - GAP) / step));
  const left = loaded.naturalWidth - count * step;
  return Array.from({ length: count }, (_, column) => ({ image: loaded, x: left + column * step, edge: step - GAP, step }));
}

function draw(canvas, pair, row, edge) {
  if (!pair) return;
  canvas.width = canvas.height = edge;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = edge < pair.edge;
  context.drawImage(pair.image, pair.x, GAP + row * pair.step, pair.edge, pair.edge, 0, 0, edge, edge);
}

function both(canvas, pair, edge, across) {
  canvas.width = across ? 2 * edge + GAP : edge;
  canvas.height = across ? edge : 2 * edge + GAP;
  const context = canvas.getContext("2d");
  for (const row of [0, 1]) {
    const at = row * (edge + GAP);
    context.drawImage(pair.image, pair.x, GAP + row * pair.step, pair.edge, pair.edge, across ? at : 0, across ? 0 : at, edge, edge);
  }
}

const cardOf = (row) => document.getElementById("task-" + row.dataset.task);
const thumbnails = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    thumbnails.unobserve(target);
    const image = cardOf(target.closest("tr"))?.querySelector("img");
    if (image) sheet(image).then((found) => found[0] && both(target, found[0], 80, true)).catch(() => target.remove());
  }
}, { rootMargin: "400px" });
for (const row of rows) {
  if (!cardOf(row)?.querySelector("img")) continue;
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  canvas.addEventListener("click", () => move(row));
  row.cells[0].append(canvas);
  thumbnails.observe(canvas);
}

// --- the window

async function open(row) {
  close(false);
  const card = cardOf(row);
  opened = row;
  home = document.createComment("card");
  card.replaceWith(home);
  place.replaceChildren(card);
  const at = shown.indexOf(row);
  const name = document.createElement("b"), { kind, status, verdict } = row.dataset;
  name.textContent = row.dataset.name ?? "";
  const where = [kind, status, verdict, at < 0 ? "" : `${at + 1} of ${shown.length}`].filter(Boolean).join(" · ");
  viewer.querySelector(".where").replaceChildren(name, where);
  viewer.querySelector("[data-go='-1']").disabled = at <= 0;
  viewer.querySelector("[data-go='1']").disabled = at < 0 || at >= shown.length - 1;
  viewer.setAttribute("aria-label", row.dataset.name ?? "");
  if (!viewer.open) viewer.showModal();
  viewer.scrollTop = 0;
  setTimeout(() => viewer.contains(document.activeElement) || viewer.focus());  // where the address has moved it away
  document.dispatchEvent(new CustomEvent("opened", { detail: { row, card } }));
  await pictures(card, row);
}

async function pictures(card, row) {
  strip.replaceChildren();
  pairs = [];
  pair = null;
  stage.hidden = true;
  for (const image of card.querySelectorAll("img.grid")) {
    let found = [];
    try { found = await sheet(image); } catch { /* the card says what is missing */ }
    if (opened !== row) return;
    if (!found.length) continue;
    const title = document.createElement("h4"), list = document.createElement("div");
    title.textContent = image.dataset.group;
    found.forEach((one, number) => {
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      button.type = "button";
      button.setAttribute("aria-label", `${image.dataset.group}, picture ${number + 1}`);
      both(canvas, one, 48, false);
      button.append(canvas);
      button.addEventListener("click", () => show(one));
      list.append(button);
      pairs.push(Object.assign(one, { button }));
    });
    strip.append(title, list);
    stage.hidden = false;
    if (!pair) show(pairs[0]);
  }
}

function show(one) {
  pair = one;
  for (const other of pairs) other.button.setAttribute("aria-pressed", String(other === one));
  const edge = one.edge * Math.max(1, Math.round(512 / one.edge));
  views.querySelectorAll("canvas").forEach((canvas, row) => draw(canvas, one, row, edge));
}

function mode(name) {
  clearInterval(ticking);
  views.className = "views" + (name === "side" ? "" : " over " + name);
  for (const button of viewer.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", String(button.dataset.mode === name));
  range.hidden = name !== "swipe";
  swipe();
  if (name === "flicker" && !still.matches) ticking = setInterval(() => views.classList.toggle("base"), FLICKER_MS);
}

function swipe() {
  views.querySelectorAll("canvas")[1].style.clipPath = range.hidden ? "" : `inset(0 0 0 ${range.value}%)`;
}

function close(leave = true) {
  if (home && opened) home.replaceWith(place.firstChild);
  const was = opened;
  opened = home = null;
  if (!leave) return;
  mode("side");
  if (viewer.open) viewer.close();
  if (location.hash.startsWith("#task-")) location.replace("#concepts");
  if (was && !was.hidden) setTimeout(() => was.querySelector("a")?.focus());  // after the browser has moved the focus
}

function go(by) {
  const next = shown[shown.indexOf(opened) + by];
  if (opened && shown.includes(opened) && next) move(next);
}

function move(row) {
  location.replace("#task-" + row.dataset.task);
  follow();  // at once: the event comes later, perhaps after the next key
}

function follow() {
  const row = rows.find((row) => "#task-" + row.dataset.task === location.hash);
  if (row && row === opened) return;
  if (row && cardOf(row)) open(row);
  else if (opened) {
    close();
    const target = document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
    target?.scrollIntoView();
  }
}

viewer.addEventListener("close", () => { if (opened) close(); });
viewer.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (event.target === viewer || button?.hasAttribute("data-close")) close();
  else if (button?.dataset.go) go(Number(button.dataset.go));
  else if (button?.dataset.mode) mode(button.dataset.mode);
});
views.addEventListener("pointermove", (event) => {
  if (range.hidden || !(event.buttons || event.pointerType === "touch")) return;
  const box = views.getBoundingClientRect();
  range.value = 100 * (event.clientX - box.left) / box.width;
  swipe();
});
views.addEventListener("click", () => { if (views.classList.contains("flicker")) views.classList.toggle("base"); });
range.addEventListener("input", swipe);
document.addEventListener("keydown", (event) => {
  if (!viewer.open || event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const modes = { 1: "side", 2: "swipe", 3: "flicker" }, ways = { ArrowLeft: -1, k: -1, ArrowRight: 1, j: 1 };
  if (event.key in modes) mode(modes[event.key]);
  else if (event.key in ways) go(ways[event.key]);
  else return;
  event.preventDefault();
});
addEventListener("hashchange", follow);
follow();
