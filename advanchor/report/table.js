// Sorts and filters the table; the page says everything without this. What a file said is read as text, never as markup.
"use strict";
document.documentElement.classList.add("js");
const table = document.querySelector("#table"), body = table.tBodies[0], heads = [...table.querySelectorAll("th[data-key]")];
const field = (id) => document.getElementById(id);
const words = (row) => ["name", "reason", "note"].map((key) => row.dataset[key] ?? "").join("\n").normalize("NFKC").toLowerCase();
const rows = [...body.rows], texts = new Map(rows.map((row) => [row, words(row)]));
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const TEXTS = ["name", "kind", "status", "verdict", "outcome"], FALLING = ["degradation", "seconds", "attempts"];
let shown = rows;

function sort(key, down) {
  const value = (row) => row.getAttribute("data-" + key);
  const order = TEXTS.includes(key) ? collator.compare : (a, b) => a - b;
  rows.sort((a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === null || right === null) return (left === null) - (right === null);  // what has no value comes last
    return (down ? -1 : 1) * order(left, right) || a.dataset.rank - b.dataset.rank;
  });
  for (const head of heads) {
    if (head.dataset.key === key) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  body.append(...rows);
  shown = rows.filter((row) => !row.hidden);
}

function filter() {
  const wanted = (field("search").value ?? "").normalize("NFKC").toLowerCase().split(/\s+/).filter(Boolean);
  const exact = ["kind", "status", "verdict", "outcome"].map((key) => [key, field(key)?.value]).filter((pair) => pair[1]);
  const score = field("score")?.value, most = field("most")?.value;
  for (const row of rows) {
    const value = row.getAttribute("data-" + score);
    row.hidden = !wanted.every((word) => texts.get(row).includes(word))
      || !exact.every(([key, want]) => (row.getAttribute("data-" + key) ?? "none yet") === want)
      || Boolean(most) && (value === null || 100 * value > Number(most) + 1e-9);
  }
  shown = rows.filter((row) => !row.hidden);
  field("count").textContent = shown.length === rows.length ? `${rows.length} concepts` : `${shown.length} of ${rows.length} concepts`;
  field("nothing").hidden = shown.length > 0 || rows.length === 0;
}

const tools = document.querySelector(".tools");
tools.hidden = false;
tools.addEventListener("input", (event) => {
  if (event.target.id === "sort") sort(event.target.value, FALLING.includes(event.target.value));
  else filter();
});
tools.addEventListener("submit", (event) => event.preventDefault());
field("reset").addEventListener("click", () => {
  for (const control of tools.querySelectorAll("input, select:not(#sort, #score)")) control.value = "";
  filter();
  field("search").focus();
});
for (const head of heads) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const now = head.getAttribute("aria-sort"), key = head.dataset.key;
    sort(key, now ? now === "ascending" : FALLING.includes(key));
    const option = [...field("sort").options].find((option) => option.value === key);
    field("sort").selectedIndex = option ? option.index : -1;
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, select, textarea, dialog")) return;
  event.preventDefault();
  field("search").focus();
});
filter();
