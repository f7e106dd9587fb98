// Terms with their definition: it shows when the term is pointed at, has the focus, or is touched. Last: the first view.
const tip = el("p", { id: "tip", role: "tooltip", hidden: "" });
let explained = null; // the term whose definition shows

function term(name, text) {
  return el("button", { type: "button", class: "term", "data-term": name }, text || name);
}

function showTip(button) {
  if (explained && explained !== button) hideTip();
  explained = button;
  (button.closest("dialog") || document.body).append(tip); // nothing outside of an open panel is visible
  tip.replaceChildren(el("b", {}, button.dataset.term), ": ", data.terms[button.dataset.term]);
  tip.hidden = false;
  button.setAttribute("aria-describedby", "tip");
  placeTip();
}

function placeTip() {
  if (!explained) return;
  const at = explained.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8));
  const top = at.bottom + tip.offsetHeight + 8 < innerHeight ? at.bottom + 6 : at.top - tip.offsetHeight - 6;
  [tip.style.left, tip.style.top] = [`${left}px`, `${top}px`];
}

function hideTip() {
  tip.hidden = true;
  explained?.removeAttribute("aria-describedby");
  explained = null;
}

const termOf = (event) => event.target.closest?.(".term");
document.addEventListener("pointerover", (event) => {
  if (termOf(event)) showTip(termOf(event));
  else if (!tip.hidden && event.target !== tip && !document.activeElement.matches(".term")) hideTip();
});
document.addEventListener("focusin", (event) => (termOf(event) ? showTip(termOf(event)) : hideTip()));
document.addEventListener("click", (event) => (termOf(event) ? showTip(termOf(event)) : event.target !== tip && hideTip()));
document.addEventListener("scroll", placeTip, true); // a focus scrolls, too
document.addEventListener(
  "keydown",
  (event) => {
    if (event.key !== "Escape" || tip.hidden) return;
    hideTip();
    event.preventDefault(); // the panel stays open
    event.stopPropagation();
  },
  true,
);

$("best").append(...data.highlights.map((i) => card(i, {})));
showFlags();
if (data.causes) unpackCauses().then(follow);
else follow();
