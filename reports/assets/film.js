"use strict";
// Films whose frames lie in one picture, row by row: they play, stop, and can be wound.
const FRAME = 90; // milliseconds
for (const player of document.querySelectorAll(".player")) {
  const [picture, button, winder] = ["img", ".play", "input"].map((part) => player.querySelector(part));
  const [frames, across] = [Number(player.dataset.frames), Number(player.dataset.across)];
  const rows = Math.ceil(frames / across);
  let timer = null;
  const show = (frame) => {
    winder.value = frame;
    picture.style.transform = `translate(${(-100 * (frame % across)) / across}%, ${(-100 * Math.floor(frame / across)) / rows}%)`;
  };
  const play = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(() => show((Number(winder.value) + 1) % frames), FRAME) : null;
    button.setAttribute("aria-pressed", on);
    button.textContent = on ? "pause" : "play";
  };
  button.addEventListener("click", () => play(timer === null));
  winder.addEventListener("input", () => {
    play(false);
    show(Number(winder.value));
  });
  show(0);
  // A film starts when it comes into view, unless the reader wants less motion; once stopped by hand it stays so.
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      play(true);
    }).observe(player);
  }
}
