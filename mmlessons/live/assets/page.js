(() => {
  const key = "mm-language";
  const remembered = () => { try { return localStorage.getItem(key); } catch { return null; } };
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
    for (const alt of document.querySelectorAll(".mm-alt p")) {
      const picture = alt.closest(".jp-OutputArea")?.querySelector(".jp-RenderedImage img");
      if (picture && picture.alt !== alt.textContent) picture.alt = alt.textContent;
    }
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
  new MutationObserver(tidy).observe(document.body, { childList: true, subtree: true });
})();
