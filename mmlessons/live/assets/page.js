(() => {
  const key = "mm-language";
  const remembered = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const asleep = {
    zh: "这些控件背后没有内核，所以按不动，停在最后的样子。运行这一格，或选 Run → Run All Cells，就又能动。",
    en: "No kernel is behind these controls, so they rest as they last stood. Run this cell, or choose Run → Run All Cells, and they move again.",
  };
  const training = {
    zh: "若训练其实还在进行，在新的一格里运行 live.show()，面板就回来。",
    en: "If the training still goes on, run live.show() in a new cell to bring its panel back.",
  };
  const tellWhoSleeps = (panel) => {
    const sleeps = panel.classList.contains("jupyter-widgets-disconnected");
    const line = panel.querySelector(":scope > .mm-asleep");
    for (const part of panel.querySelectorAll("button, input, select, .noUi-target"))
      if (part.inert !== sleeps) part.inert = sleeps;
    if (sleeps && !line) {
      const said = document.createElement("div");
      said.className = "mm-say mm-asleep";
      said.setAttribute("role", "status");
      for (const lang of ["zh", "en"]) {
        const part = said.appendChild(document.createElement("div"));
        part.lang = lang;
        part.append(asleep[lang] + " ", Object.assign(document.createElement("b"), { textContent: training[lang] }));
      }
      panel.prepend(said);
    }
    if (!sleeps) line?.remove();
  };
  const wides = ".jp-RenderedMarkdown :is(p, table, figure), .jp-RenderedMarkdown, .jp-RenderedMermaid, .mm-chart, .mm-cards, .jp-OutputArea-output";
  const tidy = () => {
    for (const form of document.querySelectorAll(".mm-switch:not([data-ready])")) {
      form.dataset.ready = "yes";
      const radio = form.querySelector(`input[value="${remembered()}"]`);
      if (radio) radio.checked = true;
    }
    // what a screen reader should call a control; and no notebook shortcut may take the keys it needs
    for (const box of document.querySelectorAll(".widget-slider, .widget-text")) {
      const name = box.querySelector(".widget-label")?.textContent.trim();
      for (const part of box.querySelectorAll(".noUi-handle, input"))
        if (name && part.getAttribute("aria-label") !== name) part.setAttribute("aria-label", name);
    }
    for (const alt of document.querySelectorAll(".mm-alt p"))
      for (const picture of alt.closest(".jp-OutputArea")?.querySelectorAll(".mm-curves img, .jp-RenderedImage img") ?? [])
        if (picture.alt !== alt.textContent) picture.alt = alt.textContent;
    document.querySelectorAll(".mm-panel").forEach(tellWhoSleeps);
    for (const wide of document.querySelectorAll(wides)) // what scrolls can be reached from the keyboard
      if (wide.scrollWidth > wide.clientWidth && wide.tabIndex < 0) wide.tabIndex = 0;
    for (const button of document.querySelectorAll(".mm .jupyter-widget-toggle-button, .mm .widget-toggle-button")) {
      const pressed = String(button.classList.contains("mod-active"));
      if (button.getAttribute("aria-pressed") !== pressed) button.setAttribute("aria-pressed", pressed);
    }
    for (const part of document.querySelectorAll(":is(.mm, .mm-slider) :is(button, input, select, audio, .noUi-handle)"))
      if (!part.dataset.lmSuppressShortcuts) part.dataset.lmSuppressShortcuts = "true";
  };
  tidy();
  if (window.mmPage) return;
  window.mmPage = true;
  document.addEventListener("change", (event) => {
    if (event.target.name === key) try { localStorage.setItem(key, event.target.value); } catch { /* private window */ }
  });
  window.addEventListener("resize", tidy);
  new MutationObserver(tidy).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] });
})();
