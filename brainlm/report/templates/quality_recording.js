// Two images in one place: the eye sees at once what moves between them.
(() => {
  const stack = document.querySelector("[data-stack]");
  if (!stack) return;
  const image = (name) => stack.querySelector(`[data-image="${name}"]`);
  const flicker = document.querySelector("[data-flicker]");
  const auto = document.querySelector("[data-auto]");
  let timer = null;
  const swap = () => {
    const template = image("bold").hidden;
    image("bold").hidden = !template;
    image("template").hidden = template;
    flicker.textContent = template ? "Show the template" : "Show the reference volume";
    flicker.setAttribute("aria-pressed", String(!template));
  };
  flicker.addEventListener("click", swap);
  auto.addEventListener("click", () => {
    if (timer) clearInterval(timer);
    timer = timer ? null : setInterval(swap, 600);
    auto.setAttribute("aria-pressed", String(timer !== null));
    auto.textContent = timer ? "Stop" : "Flicker";
  });
  for (const box of document.querySelectorAll("[data-layer]")) {
    box.addEventListener("change", () => { image(box.dataset.layer).hidden = !box.checked; });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== " " || event.target.closest("button, input")) return;
    event.preventDefault();
    swap();
  });
})();
