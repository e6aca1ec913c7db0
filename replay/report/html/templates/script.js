"use strict";
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const cards = [...document.querySelectorAll("details.card")];
  const groups = [...document.querySelectorAll("[data-group]")];
  const count = document.getElementById("count");
  const openAll = document.getElementById("open-all");
  const fields = form.elements;
  const texts = new Map();
  const opened = new Set();

  const text = (card) => {
    if (!texts.has(card)) texts.set(card, card.textContent.toLowerCase());
    return texts.get(card);
  };
  const wanted = (card) =>
    ["endpoint", "kind", "judgement"].every((name) => !fields[name].value || card.dataset[name] === fields[name].value)
    && (!fields.text.value || text(card).includes(fields.text.value.toLowerCase()));
  const shown = () => cards.filter((card) => card.checkVisibility());

  const filter = () => {
    const filtered = ["text", "endpoint", "kind", "judgement"].some((name) => fields[name].value);
    let found = 0;
    for (const card of cards) {
      const keep = wanted(card);
      card.parentElement.hidden = !keep;
      found += keep;
    }
    for (const group of groups) {
      const any = group.querySelector("li:not([hidden]) > details.card");
      group.hidden = !any;
      // What a filter has opened closes again without it.
      if (group.tagName !== "DETAILS") continue;
      if (filtered && any && !group.open) { group.open = true; opened.add(group); }
      if (!filtered && opened.delete(group)) group.open = false;
    }
    count.textContent = found === cards.length
      ? `${cards.length} findings`
      : `${found} of ${cards.length} findings`;
  };
  const step = (by) => {
    const all = shown();
    if (!all.length) return;
    const here = all.indexOf(document.activeElement.closest("details.card"));
    const next = here < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, here + by));
    const summary = all[next].querySelector("summary");
    summary.focus();
    summary.scrollIntoView({ block: "nearest" });
  };

  form.addEventListener("input", filter);
  form.addEventListener("change", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  openAll.addEventListener("click", () => {
    const all = shown();
    const open = !all.every((card) => card.open);
    for (const card of all) card.open = open;
    openAll.textContent = open ? "Close all" : "Open all";
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") { form.reset(); document.activeElement.blur(); return; }
    if (event.target.closest("input, select, textarea")) return;
    const act = { "/": () => fields.text.focus(), j: () => step(1), k: () => step(-1) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  const copy = async (pre, button) => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(pre);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
  document.addEventListener("toggle", (event) => {
    for (const pre of event.target.open ? event.target.querySelectorAll("pre.cmd") : []) {
      if (pre.nextElementSibling?.matches("button.copy")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "Copy";
      button.setAttribute("aria-label", "Copy the command");
      button.addEventListener("click", () => copy(pre, button));
      pre.after(button);
    }
  }, true);

  const reveal = () => {
    const card = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!card?.matches("details.card")) return;
    card.closest("details.group")?.setAttribute("open", "");
    card.open = true;
    card.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  form.hidden = false;
  filter();
  reveal();
})();
