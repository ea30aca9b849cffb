"use strict";
// Browses the answers of a report. All text of models and rows goes through textContent: none of it is ever markup.
(() => {
  const PAGE = 50; // rows
  const EXCERPT = 280; // characters of a text in the table
  const PAUSE = 120; // milliseconds without a key before a search begins
  const data = JSON.parse(document.getElementById("answers-data").textContent);
  const [PROMPT, GOLD, KINDS, FIRST] = [0, 1, 2, 3];
  const [TEXT, MARK, SHARES, LOSS, READ] = [0, 1, 2, 3, 4];
  const MARKS = { 1: ["right", "✓", "right"], 0: ["false", "✗", "wrong"], "-1": ["false", "?", "unreadable"] };
  const tuned = FIRST + data.columns.findIndex(([name]) => name === "tuned");
  const controls = document.getElementById("controls");
  const body = document.getElementById("rows-shown");
  const count = document.getElementById("count");
  const buttons = { previous: document.getElementById("previous"), next: document.getElementById("next") };
  const fields = ["show", "label", "search", "sort"];
  let state = { show: "all", label: "", search: "", sort: "", page: 1, open: new Set() };
  let found = [];

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  const draws = (given) => (Array.isArray(given[0]) ? given : given.length ? [given] : []);
  const shares = (answer) => {
    const own = answer[SHARES];
    if (!own) return [];
    return Array.isArray(own) ? own.map((share, i) => [data.choices[i], share]) : Object.entries(own);
  };
  const confidence = (row) => Math.max(0, ...shares(row[tuned]).map(([, share]) => share));
  const percent = (share) => `${(share * 100).toFixed(1)} %`;

  const haystacks = [];
  function haystack(number) {
    if (haystacks[number] === undefined) {
      const row = data.rows[number];
      const texts = row.slice(FIRST).flatMap(draws).map((answer) => answer[TEXT]);
      haystacks[number] = [data.beginning + row[PROMPT], row[GOLD], ...texts].join("\n").toLowerCase();
    }
    return haystacks[number];
  }

  function find() {
    const bit = state.show === "all" ? 0 : 1 << data.kinds.indexOf(state.show);
    const wanted = state.search.toLowerCase();
    found = [];
    data.rows.forEach((row, number) => {
      if (bit && !(row[KINDS] & bit)) return;
      if (state.label && row[GOLD] !== state.label) return;
      if (wanted && !haystack(number).includes(wanted)) return;
      found.push(number);
    });
    if (state.sort) {
      const sign = state.sort === "sure" ? -1 : 1;
      const sure = new Map(found.map((number) => [number, confidence(data.rows[number])]));
      found.sort((a, b) => sign * (sure.get(a) - sure.get(b)) || a - b);
    }
    state.page = Math.min(Math.max(1, state.page), Math.max(1, Math.ceil(found.length / PAGE)));
  }

  function marked([style, sign, word]) {
    return element("span", { class: `mark ${style}` }, element("span", { "aria-hidden": "true" }, sign), element("span", { class: "hidden" }, word));
  }

  function cut(text, ...before) {
    const short = text.length > EXCERPT ? `${text.slice(0, EXCERPT)}…` : text;
    return element("div", { class: "cut", dir: "auto" }, ...before, short);
  }

  function cell(given, title) {
    const own = draws(given);
    const right = own.filter((answer) => answer[MARK] === 1).length;
    const made = element("td", { role: "cell", "data-title": title });
    if (own.length > 1) {
      made.append(element("span", { class: right * 2 > own.length ? "right" : "false" }, `${right} of ${own.length} right`));
    } else if (own.length) {
      made.append(cut(own[0][TEXT], marked(MARKS[own[0][MARK]])));
    }
    return made;
  }

  function odds(answer) {
    const list = element("ul", { class: "odds", "aria-label": "Probabilities of the choices" });
    for (const [choice, share] of shares(answer)) {
      const bar = element("b");
      bar.style.width = `${share * 100}%`;
      list.append(element("li", {}, element("span", { dir: "auto" }, choice), element("i", { "aria-hidden": "true" }, bar), element("span", {}, percent(share))));
    }
    return list.children.length ? list : null;
  }

  function told(answer, column, title) {
    const [style, sign, word] = MARKS[answer[MARK]];
    const notes = [];
    if (answer[READ] !== undefined && answer[READ] !== null) notes.push(`read as: ${answer[READ]}`);
    if (answer[LOSS] !== undefined && answer[LOSS] !== null) notes.push(`loss of the gold answer: ${answer[LOSS]} nats`);
    return element(
      "div",
      { class: `of-${column}` },
      element("h3", {}, `${title}: `, element("span", { class: style }, `${sign} ${word}`)),
      element("div", { class: "text", dir: "auto" }, answer[TEXT] || "(empty)"),
      notes.length ? element("p", { class: "soft", dir: "auto" }, notes.join("; ")) : null,
      odds(answer),
    );
  }

  function opened(number) {
    const row = data.rows[number];
    const all = element("div", { class: "given" });
    const gold = element("div", { class: "of-gold" }, element("h3", {}, "gold"), element("div", { class: "text", dir: "auto" }, row[GOLD]));
    all.append(gold);
    data.columns.forEach(([column, title], i) => {
      const own = draws(row[FIRST + i]);
      own.forEach((answer, draw) => all.append(told(answer, column, own.length > 1 ? `${title}, draw ${draw + 1}` : title)));
    });
    if (row.slice(FIRST).flatMap(draws).some((answer) => answer[TEXT].length > 120)) all.classList.add("long");
    const prompt = element("div", { class: "text", dir: "auto" }, element("span", { class: "beginning" }, data.beginning), row[PROMPT]);
    const cell = element("td", { role: "cell", colspan: String(FIRST + data.columns.length) }, element("h3", {}, "prompt"), prompt, all);
    return element("tr", { role: "row", class: "opened", id: `opened-${number}` }, cell);
  }

  function line(number) {
    const row = data.rows[number];
    const isOpen = state.open.has(number);
    const button = element("button", {
      type: "button", class: "open", "aria-expanded": String(isOpen), "data-number": String(number),
      "aria-label": `Row ${number + 1}, open`,
    }, String(number + 1));
    if (isOpen) button.setAttribute("aria-controls", `opened-${number}`);
    const made = element(
      "tr",
      { role: "row", class: "row" },
      element("th", { scope: "row", role: "rowheader", class: "number" }, button),
      element("td", { role: "cell", class: "ask" }, cut((data.beginning ? "… " : "") + row[PROMPT])),
      element("td", { role: "cell", "data-title": "gold" }, cut(row[GOLD])),
      ...data.columns.map(([, title], i) => cell(row[FIRST + i], title)),
    );
    return isOpen ? [made, opened(number)] : [made];
  }

  function draw() {
    const first = (state.page - 1) * PAGE;
    const shown = found.slice(first, first + PAGE);
    body.replaceChildren(...shown.flatMap(line));
    const whole = data.rows.length.toLocaleString("en");
    const all = found.length.toLocaleString("en");
    const range = shown.length ? `Rows ${(first + 1).toLocaleString("en")} to ${(first + shown.length).toLocaleString("en")} of ${all}` : "No row";
    count.textContent = found.length === data.rows.length ? `${range}.` : `${range} shown, ${whole} in all.`;
    buttons.previous.disabled = state.page === 1;
    buttons.next.disabled = first + PAGE >= found.length;
  }

  function keep() {
    const hash = new URLSearchParams();
    for (const name of fields) if (state[name] && state[name] !== "all") hash.set(name, state[name]);
    if (state.page > 1) hash.set("page", state.page);
    if (state.open.size) hash.set("open", [...state.open].map((number) => number + 1).join(","));
    const text = hash.toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  function toControls() {
    for (const name of fields) {
      const field = controls.elements.namedItem(name);
      if (!field) { state[name] = ""; continue; }
      field.value = state[name];
      if (field.value !== state[name]) state[name] = field.value = name === "show" ? "all" : "";
    }
  }

  function fromHash() {
    const text = location.hash.slice(1);
    if (text && !text.includes("=")) return false;
    const hash = new URLSearchParams(text);
    for (const name of fields) state[name] = hash.get(name) || (name === "show" ? "all" : "");
    state.page = Number.parseInt(hash.get("page"), 10) || 1;
    const open = (hash.get("open") || "").split(",").map((number) => Number.parseInt(number, 10) - 1);
    state.open = new Set(open.filter((number) => number in data.rows));
    toControls();
    return text !== "";
  }

  function change(changes) {
    state = { ...state, page: 1, ...changes };
    find();
    draw();
    keep();
  }

  function toggle(number) {
    if (!state.open.delete(number)) state.open.add(number);
    draw();
    keep();
    body.querySelector(`[data-number="${number}"]`).focus();
  }

  function step(by) {
    change({ page: state.page + by });
    document.getElementById("answers").scrollIntoView();
    if (document.activeElement.disabled || document.activeElement === document.body) buttons[by > 0 ? "previous" : "next"].focus();
  }

  let waiting;
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("input", (event) => {
    const field = event.target;
    const changes = { [field.name]: field.value };
    clearTimeout(waiting);
    if (field.name === "search") waiting = setTimeout(() => change(changes), PAUSE);
    else change({ ...changes, search: controls.elements.search.value });
  });
  buttons.previous.addEventListener("click", () => step(-1));
  buttons.next.addEventListener("click", () => step(1));
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr.row");
    if (row && !String(getSelection())) toggle(Number(row.querySelector(".open").dataset.number));
  });
  body.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by || !event.target.matches(".open")) return;
    const all = [...body.querySelectorAll(".open")];
    const next = all[all.indexOf(event.target) + by];
    if (next) next.focus();
    event.preventDefault();
  });
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => {
      state = { ...state, show: button.dataset.show, label: "", search: "" };
      toControls();
      change({});
      document.getElementById("answers").scrollIntoView();
      controls.querySelector(":checked").focus({ preventScroll: true });
    });
  }
  addEventListener("hashchange", () => {
    if (location.hash.includes("=") || !location.hash) show();
  });

  function show() {
    const isAsked = fromHash();
    find();
    draw();
    if (isAsked) document.getElementById("answers").scrollIntoView({ behavior: "instant" });
  }

  for (const part of document.querySelectorAll(".needs-script")) part.hidden = false;
  show();
})();
