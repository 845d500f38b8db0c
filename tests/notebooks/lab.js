// What the tests ask of a page, in its own language. Every page has this before anything else: window.lab.

window.lab = (() => {
    const all = selector => [...document.querySelectorAll(selector)];
    const cells = () => window.jupyterapp.shell.currentWidget.content.widgets;
    const kernel = () => window.jupyterapp?.shell?.currentWidget?.context?.sessionContext?.session?.kernel;
    const meant = cell => (cell?.model.getMetadata('tags') ?? []).includes('raises-exception');
    const start = text => text.trim().slice(0, 300);

    const output = (cell, number) =>
        cells()[cell].outputArea.widgets[number].node.querySelector('.jp-OutputArea-output');

    // --- errors ---

    // The kernel's own messages: what a callback of a widget, a task or a thread raises is shown nowhere on the page.
    const heard = [], sender = new Map();
    let listening = null;

    function listen() {
        if (listening === kernel()) return;
        listening = kernel();
        listening.anyMessage.connect((_, {msg, direction}) => {
            if (direction === 'send') sender.set(msg.header.msg_id, msg.metadata?.cellId);
            const kind = msg.header.msg_type, by = sender.get(msg.parent_header?.msg_id);
            if (by && meant(cells().find(cell => cell.model.id === by))) return;
            if (kind === 'stream' && /^No such comm/.test(msg.content.text)) return; // widgets older than the kernel
            if (kind === 'error') heard.push(start(`${msg.content.ename}: ${msg.content.evalue}`));
            if (kind === 'stream' && msg.content.name === 'stderr') heard.push(msg.content.text.trim().slice(-300));
        });
    }

    // Errors and stderr, in a cell, in a widget or unseen, but for cells that are meant to raise.
    const errors = () => [
        ...all('.jp-Notebook :is([data-mime-type$="jupyter.stderr"], [data-mime-type$="jupyter.error"], ' +
               '.jupyter-widgets-error-widget, .mm-error)')
            .filter(e => e.textContent.trim() && !cells().some(cell => meant(cell) && cell.node.contains(e)))
            .map(e => start(e.textContent)),
        ...heard.filter(text => text)];

    // --- what can be seen ---

    const visible = language => all(`.jp-Notebook [lang|=${language}]`)
        .filter(e => e.checkVisibility() && e.getClientRects().length && e.textContent.trim())
        .filter(e => !e.closest('.mm-switch')).map(e => e.textContent.trim().slice(0, 60));

    function height() {
        const outer = document.querySelector('.jp-WindowedPanel-outer') ?? document.querySelector('.jp-Notebook');
        return outer.scrollHeight + window.innerHeight - outer.clientHeight + 20;
    }

    // What a reader must see or press, and cannot: to the right of the notebook's edge, with no way to scroll there.
    function stickingOut() {
        const notebook = document.querySelector('.jp-Notebook'), edge = notebook.getBoundingClientRect().right + 1;
        const scrolls = e => e !== notebook && !e.contains(notebook) &&
            (['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && e.getBoundingClientRect().right <= edge
             || scrolls(e.parentElement));
        const widgets = '.mm-panel, .mm-switch, .mm .noUi-target, .mm button, .mm select, .mm input, .mm audio';
        const prose = '.jp-RenderedMarkdown :is(p, li, h1, h2, h3, h4, summary), .mm-say';
        return [...notebook.querySelectorAll(`${widgets}, ${prose}`)]
            .filter(e => e.checkVisibility() && e.getBoundingClientRect().right > edge)
            .filter(e => !e.closest('.jp-mod-noOutputs') && (e.matches(widgets) || !scrolls(e.parentElement)))
            .map(e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`);
    }

    // What is wider than its place and either cut off or scrolls with no sign of it; code and printed text apart.
    function hiddenAtTheSide() {
        const looks = e => getComputedStyle(e);
        return all('.jp-Notebook :is(.jp-RenderedMarkdown, .jp-RenderedMermaid, .jp-OutputArea-output)')
            .flatMap(box => [box, ...box.querySelectorAll('*')])
            .filter(e => e.scrollWidth > e.clientWidth + 2 && e.clientWidth > 2 && e.checkVisibility())
            .filter(e => looks(e).overflowX !== 'visible' && looks(e).backgroundImage === 'none')
            .filter(e => !e.closest('pre, code, svg, mjx-container, .mm-unseen, .mm-share, .noUi-target, select') &&
                         !e.querySelector(':scope > pre'))
            .map(e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`);
    }

    // Pixels that the letters of each diagram have on the screen.
    const lettersOfDiagrams = () => all('.jp-Notebook .jp-RenderedMermaid img').map(img => {
        const drawn = decodeURIComponent(img.src), size = Number(/font-size:\s*([\d.]+)px/.exec(drawn)[1]);
        const natural = Number(/viewBox="[-\d.]+ [-\d.]+ ([\d.]+)/.exec(drawn)[1]);
        return size * img.getBoundingClientRect().width / natural; });

    // --- moving every control ---

    const TEXTS = ['', 'red apple', '红色的苹果', '<img src=x onerror=alert(1)> </div> \\frac{ %s 🦄👩🏽‍🚀 \u202e\u0001'];
    const PATIENCE = 20; // seconds: a control that keeps a reader waiting longer is broken
    const name = e => e.getAttribute('aria-label') || e.closest('.jupyter-widgets')?.innerText.trim() || e.className;
    const key = (e, key, kind = 'keydown', keyCode = 0) =>
        e.dispatchEvent(new KeyboardEvent(kind, {key, keyCode, bubbles: true}));
    const changed = (e, ...kinds) => kinds.forEach(kind => e.dispatchEvent(new Event(kind, {bubbles: true})));

    // Every slider to both its ends, every menu to each choice, every text also as rubbish, and all of them back; then
    // every box and button clicked. After each move the kernel answers before the next. Returns how many controls there
    // were, and those that did not move or kept a reader waiting.
    async function moveEverything() {
        const wrong = [], shown = e => e.checkVisibility() && !e.closest('[disabled], [inert], .mm-switch');
        const controls = what => all(`.jp-Notebook .jp-OutputArea :is(${what})`).filter(shown);
        const sliders = controls('[role=slider]'), menus = controls('select');
        const texts = controls('.widget-text input, .widget-textarea textarea');
        const clicks = controls('input[type=checkbox], .jupyter-button');
        const answered = async e => {
            const began = performance.now();
            await kernel().requestKernelInfo();
            if (performance.now() - began > 1000 * PATIENCE) wrong.push(`${name(e)} takes long`);
        };
        for (const slider of sliders) {
            const target = slider.closest('.noUi-target').noUiSlider, number = Number(slider.dataset.handle);
            const value = () => [target.get(true)].flat()[number], before = value(), seen = new Set([before]);
            for (const end of ['Home', 'End', 'Home']) {
                key(slider, end);
                seen.add(value());
                await answered(slider);
            }
            for (let last = NaN; value() < before && value() !== last;) {
                last = value();
                key(slider, 'ArrowRight');
            }
            await answered(slider);
            if (seen.size < 2) wrong.push(name(slider));
        }
        for (const menu of menus) {
            for (const index of [...Array(menu.length).keys(), menu.selectedIndex]) {
                menu.selectedIndex = index;
                changed(menu, 'change');
                await answered(menu);
            }
            if (menu.length < 2) wrong.push(name(menu));
        }
        for (const box of texts) {
            for (const text of [...TEXTS, box.value]) {
                box.value = text;
                changed(box, 'input', 'change');
                key(box, 'Enter', 'keypress', 13);
                await answered(box);
            }
        }
        for (const control of clicks) {
            control.click();
            await answered(control);
        }
        return [sliders.length + menus.length + texts.length + clicks.length, wrong];
    }

    // --- a slider dragged while training runs ---

    const steps = new Map();

    // The panel whose step number has risen, if it has a slider to drag; `document` once Run All has ended without one.
    function runningPanel() {
        for (const status of all('.jp-Notebook .mm-status')) {
            const before = steps.get(status), step = Number((status.textContent.match(/\d+/) || [0])[0]);
            steps.set(status, step);
            const panel = status.closest('.mm-panel');
            if (step > before && panel?.querySelector('[role=slider]')) return panel;
        }
        return window.mmDone ? document : null;
    }

    // Notes each text of the panel's `.mm-values`, what the last step used, and when the mouse last dragged.
    const used = [];
    let moved = Infinity;

    function watch(panel) {
        const read = () => {
            const text = panel.querySelector('.mm-values').textContent;
            if (text !== used.at(-1)?.text) used.push({time: performance.now(), text});
        };
        read();
        new MutationObserver(read).observe(panel, {subtree: true, childList: true, characterData: true});
        document.addEventListener('pointermove', e => { if (e.buttons) moved = performance.now(); }, true);
    }

    // Milliseconds from the last move of the mouse until a step used this value; null while none has.
    function delay(value) {
        const holds = ({text}) => (text.match(/-?\d+(\.\d+)?(e-?\d+)?/g) || [])
            .some(n => Math.abs(n - value) <= 1e-3 * Math.abs(value) + 1e-9);
        const hit = used.slice(1).find(holds);
        return hit ? Math.max(0, hit.time - moved) : null;
    }

    const usedValues = () => [used[0].text, used.at(-1).text];
    const readout = handle =>
        parseFloat(handle.closest('.widget-slider').querySelector('.widget-readout').textContent);

    return {kernel, listen, errors, output, visible, height, stickingOut, hiddenAtTheSide, lettersOfDiagrams,
            moveEverything, runningPanel, watch, delay, usedValues, readout};
})();
