"use strict";
// The index of results: a filter by kind, and the command that compares the runs that are ticked.
const kindButtons = [...document.querySelectorAll(".kinds button")];
for (const button of kindButtons) {
  button.addEventListener("click", () => {
    for (const other of kindButtons) other.setAttribute("aria-pressed", other === button);
    const { kind } = button.dataset;
    for (const entry of document.querySelectorAll(".entries > li")) entry.hidden = Boolean(kind) && entry.dataset.kind !== kind;
  });
}
const runBoxes = [...document.querySelectorAll("input[data-run]")];
const comparing = document.querySelector(".compare");
for (const box of comparing ? runBoxes : []) {
  box.addEventListener("change", () => {
    const runs = runBoxes.filter((other) => other.checked).map((other) => other.dataset.run);
    const [advice, command] = comparing.children;
    command.hidden = runs.length < 2;
    advice.textContent = ["Tick two runs to compare them.", "Tick another run to compare the two."][runs.length] ?? "Run this to compare them:";
    comparing.querySelector("code").textContent = ["dissect compare", ...runs].join(" ");
  });
}
