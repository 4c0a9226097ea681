// Sends verdicts to `advanchor review`, which wrote this page and listens on loopback.
"use strict";
const note = document.querySelector("#note"), said = document.querySelector(".said"), KEYS = { a: "accept", g: "again", r: "reject" };
let judged = null;

document.addEventListener("opened", ({ detail }) => {
  judged = detail.row;
  note.value = judged.dataset.note ?? "";
  press();
});

function press() {
  for (const button of viewer.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === judged.dataset.verdict));
    button.disabled = judged.dataset.status !== "done";
  }
}

async function judge(verdict) {
  const row = judged, told = { task: row.dataset.task, verdict, note: note.value };
  if (row.dataset.status !== "done") return;
  if (row.dataset.verdict === verdict && (row.dataset.note ?? "") === note.value.trim()) told.verdict = null;  // taken back
  if (told.verdict === "reject" && !note.value.trim()) {
    said.textContent = "A rejection needs a reason: write a note first.";
    note.focus();
    return;
  }
  let answer;
  try {
    answer = await fetch("verdicts", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(told) });
  } catch {
    said.textContent = "Not kept: `advanchor review` does not answer any more.";
    return;
  }
  if (!answer.ok) {
    said.textContent = `Not kept: ${await answer.text()}`;
    return;
  }
  const kept = await answer.json();
  write(row, kept.verdict, kept.note);
  said.textContent = `${row.dataset.name}: ${kept.verdict ?? "no verdict any more"}`;
  if (kept.verdict && row === judged) go(1);
}

function write(row, verdict, text) {
  const word = row.querySelector(".word");
  for (const [key, value] of [["verdict", verdict], ["note", text]]) {
    if (value) row.dataset[key] = value;
    else delete row.dataset[key];
  }
  word.className = "word " + (verdict ?? "");
  word.textContent = verdict ?? "";
  word.title = text ?? "";
  texts.set(row, words(row));
  if (row === judged) press();
}

viewer.addEventListener("click", (event) => {
  const verdict = event.target.closest("[data-verdict]")?.dataset.verdict;
  if (verdict) judge(verdict);
});
document.addEventListener("keydown", (event) => {
  if (!viewer.open || !(event.key in KEYS) || event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  judge(KEYS[event.key]);
});
if (opened) document.dispatchEvent(new CustomEvent("opened", { detail: { row: opened } }));
