// The map: points on a canvas with their legend, colours, search and tips.
// Names from the store become text, never markup.
"use strict";
(() => {
  const holder = document.getElementById("map-data");
  if (holder === null) return;
  const get = (id) => document.getElementById(id);
  const data = JSON.parse(holder.textContent);
  const KINDS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array };
  const INK = "#1d2733";
  const FADED = "#e9ecef";
  const TILES = 16; // along a sheet's side
  const PAINTED = 10000; // from so many points on, pixels are painted instead of paths drawn
  const NEAR = 12; // pixels from the mouse to a point that it means
  const canvas = get("map-canvas");
  const tip = get("tip");
  const status = get("map-status");
  const search = get("map-search");
  const context = canvas.getContext("2d");

  function unpack({ type, bytes }) {
    const text = atob(bytes);
    const raw = new Uint8Array(text.length);
    for (let i = 0; i < raw.length; i += 1) raw[i] = text.charCodeAt(i);
    return new KINDS[type](raw.buffer);
  }

  const points = unpack(data.points);
  const row = unpack(data.row);
  const tile = unpack(data.tile);
  const columns = Object.entries(data.columns)
    .map(([name, { table, code }]) => ({ name, table, code: unpack(code) }));
  const column = (name) => columns.find((each) => each.name === name);
  const text = (name, i) => column(name).table[column(name).code[i]];

  // Rows in the order of drawing, and where each group begins among them.
  const colourings = data.colourings.map(({ name, groups, code }) => {
    const of = unpack(code);
    const starts = new Uint32Array(groups.length + 1);
    for (const group of of) starts[group + 1] += 1;
    for (let g = 0; g < groups.length; g += 1) starts[g + 1] += starts[g];
    const next = starts.slice();
    const order = new Uint32Array(of.length);
    for (let i = 0; i < of.length; i += 1) { order[next[of[i]]] = i; next[of[i]] += 1; }
    return { name, groups, of, starts, order, hidden: new Set() };
  });
  let colouring = colourings[0];
  let emphasis = null; // the group whose name is pointed at
  let found = null; // rows that the search found: Uint32Array, or null without a search
  let stepped = -1; // which of them Enter has shown
  let view = { scale: 1, x: 0, y: 0 };
  let size = { width: 0, height: 0, ratio: 1 };
  let pending = 0;

  const side = () => {
    const base = data.count < 1000 ? 8 : data.count < PAINTED ? 5.5 : data.count < 50000 ? 3.5 : 2;
    return Math.min(14, base * Math.sqrt(Math.max(1, view.scale / fitted().scale)));
  };

  const extent = { x: 1, y: 1 };
  for (let i = 0; i < points.length; i += 2) {
    extent.x = Math.max(extent.x, points[i]);
    extent.y = Math.max(extent.y, points[i + 1]);
  }

  // The view that shows all points.
  function fitted() {
    const room = 24;
    const scale = Math.min((size.width - room) / extent.x, (size.height - room) / extent.y);
    return { scale, x: (size.width - extent.x * scale) / 2, y: (size.height - extent.y * scale) / 2 };
  }

  function path(on, shape, x, y, half) {
    on.beginPath();
    if (shape === "circle") on.arc(x, y, half, 0, 2 * Math.PI);
    else if (shape === "square") on.rect(x - 0.88 * half, y - 0.88 * half, 1.76 * half, 1.76 * half);
    else if (shape === "triangle") {
      on.moveTo(x, y - 1.15 * half);
      on.lineTo(x + 1.1 * half, y + 0.85 * half);
      on.lineTo(x - 1.1 * half, y + 0.85 * half);
      on.closePath();
    } else {
      on.moveTo(x, y - 1.3 * half);
      on.lineTo(x + 1.05 * half, y);
      on.lineTo(x, y + 1.3 * half);
      on.lineTo(x - 1.05 * half, y);
      on.closePath();
    }
  }

  // The pixels of a shape, as steps from its middle.
  function stamp(shape, half) {
    const reach = Math.ceil(half * 1.3) + 1;
    const small = new OffscreenCanvas(2 * reach + 1, 2 * reach + 1).getContext("2d");
    path(small, shape, reach + 0.5, reach + 0.5, half);
    small.fill();
    const { data: pixels, width } = small.getImageData(0, 0, 2 * reach + 1, 2 * reach + 1);
    const steps = [];
    for (let p = 0; p < width * width; p += 1) {
      if (pixels[4 * p + 3] > 110) steps.push((p % width) - reach, Math.floor(p / width) - reach);
    }
    return steps.length ? steps : [0, 0];
  }

  // Groups from the back to the front, with the colour that they have now.
  function layers() {
    const shown = colouring.groups.map((group, index) => ({ ...group, index }))
      .filter(({ index }) => !colouring.hidden.has(index));
    if (emphasis !== null) shown.sort((a, b) => (a.index === emphasis) - (b.index === emphasis));
    return shown.map((group) => {
      const faded = found !== null || (emphasis !== null && group.index !== emphasis);
      return { ...group, colour: faded ? FADED : group.colour,
        rows: colouring.order.subarray(colouring.starts[group.index],
          colouring.starts[group.index + 1]) };
    });
  }

  function paint(groups) {
    const { ratio } = size;
    const image = context.createImageData(canvas.width, canvas.height);
    const out = new Uint32Array(image.data.buffer);
    const { width, height } = canvas;
    for (const { rows, colour, shape } of groups) {
      const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
      const ink = (255 << 24) | (b << 16) | (g << 8) | r; // the bytes of a pixel, first one lowest
      const steps = stamp(shape, side() * ratio / 2);
      for (let k = 0; k < rows.length; k += 1) {
        const x = Math.round((points[2 * rows[k]] * view.scale + view.x) * ratio);
        const y = Math.round((points[2 * rows[k] + 1] * view.scale + view.y) * ratio);
        for (let s = 0; s < steps.length; s += 2) {
          const px = x + steps[s];
          const py = y + steps[s + 1];
          if (px >= 0 && px < width && py >= 0 && py < height) out[py * width + px] = ink;
        }
      }
    }
    context.putImageData(image, 0, 0);
  }

  function trace(groups) {
    context.lineWidth = 0.6;
    context.strokeStyle = "#ffffff";
    context.globalAlpha = 0.9;
    for (const { rows, colour, shape } of groups) {
      context.fillStyle = colour;
      for (const i of rows) {
        const { x, y } = spot(i);
        path(context, shape, x, y, side() / 2);
        context.fill();
        context.stroke();
      }
    }
    context.globalAlpha = 1;
  }

  const spot = (i) => ({ x: points[2 * i] * view.scale + view.x,
    y: points[2 * i + 1] * view.scale + view.y });
  const visible = (i) => !colouring.hidden.has(colouring.of[i]);

  function draw() {
    pending = 0;
    if (size.width === 0) return;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (data.count >= PAINTED) paint(layers());
    context.setTransform(size.ratio, 0, 0, size.ratio, 0, 0);
    if (data.count < PAINTED) trace(layers());
    if (found !== null) {
      context.lineWidth = 1.2;
      context.strokeStyle = INK;
      for (const i of found) {
        if (!visible(i)) continue;
        const { colour, shape } = colouring.groups[colouring.of[i]];
        const { x, y } = spot(i);
        context.fillStyle = colour;
        path(context, shape, x, y, Math.max(side() / 2, 3) + 1);
        context.fill();
        context.stroke();
      }
    }
    if (performance.getEntriesByName("map drawn").length === 0) performance.mark("map drawn");
  }

  function redraw() {
    if (pending === 0) pending = requestAnimationFrame(draw);
  }

  function hideTip() { tip.hidden = true; }

  function showTip(i) {
    const put = (id, words) => { get(id).textContent = words; };
    const named = text("protein", i);
    put("tip-protein", named);
    put("tip-name", text("field", i) + (data.level === "cell" ? `, cell ${row[i]}` : ""));
    const more = get("tip-more");
    more.replaceChildren();
    for (const { name, table, code } of columns) {
      if (name === "protein" || name === "field" || table[code[i]] === "") continue;
      const title = document.createElement("i");
      const value = document.createElement("span");
      title.textContent = name;
      value.textContent = table[code[i]];
      more.append(title, value);
    }
    const picture = get("tip-picture");
    picture.hidden = tile[i] < 0;
    tip.hidden = false;
    if (tile[i] >= 0) {
      const sheet = get(`sheet-${Math.floor(tile[i] / (TILES * TILES))}`);
      const place = tile[i] % (TILES * TILES);
      const width = picture.clientWidth || 160;
      picture.style.backgroundImage = `url("${sheet.textContent.trim()}")`;
      picture.style.backgroundSize = `${TILES * width}px auto`;
      picture.style.backgroundPosition =
        `${-(place % TILES) * width}px ${-Math.floor(place / TILES) * width}px`;
    }
    const { x, y } = spot(i);
    const left = x + 18 + tip.offsetWidth > size.width ? x - 18 - tip.offsetWidth : x + 18;
    const top = Math.min(y + 12, size.height - tip.offsetHeight);
    tip.style.transform = `translate(${Math.max(0, left)}px, ${Math.max(0, top)}px)`;
  }

  function nearest(x, y) {
    let best = -1;
    let least = NEAR * NEAR;
    for (let i = 0; i < data.count; i += 1) {
      const dx = points[2 * i] * view.scale + view.x - x;
      const dy = points[2 * i + 1] * view.scale + view.y - y;
      const distance = dx * dx + dy * dy;
      if (distance < least && visible(i)) { least = distance; best = i; }
    }
    return best;
  }

  function zoom(factor, x = size.width / 2, y = size.height / 2) {
    const scale = Math.min(Math.max(view.scale * factor, fitted().scale / 4), fitted().scale * 400);
    const by = scale / view.scale;
    view = { scale, x: x - (x - view.x) * by, y: y - (y - view.y) * by };
    hideTip();
    redraw();
  }

  function pan(dx, dy) {
    view = { ...view, x: view.x + dx, y: view.y + dy };
    hideTip();
    redraw();
  }

  function reset() {
    view = fitted();
    hideTip();
    redraw();
  }

  function save() {
    const page = document.createElement("canvas");
    page.width = canvas.width;
    page.height = canvas.height;
    const on = page.getContext("2d");
    on.fillStyle = "#ffffff";
    on.fillRect(0, 0, page.width, page.height);
    on.drawImage(canvas, 0, 0);
    const link = document.createElement("a");
    link.download = "map.png";
    link.href = page.toDataURL("image/png");
    link.click();
  }

  function legend() {
    const list = get("map-legend");
    list.replaceChildren();
    colouring.groups.map((group, index) => ({ ...group, index })).reverse().forEach((group) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(!colouring.hidden.has(group.index)));
      const swatch = document.createElement("canvas");
      swatch.width = swatch.height = 32;
      swatch.setAttribute("aria-hidden", "true");
      const on = swatch.getContext("2d");
      on.fillStyle = group.colour;
      path(on, group.shape, 16, 16, 10);
      on.fill();
      const name = document.createElement("span");
      name.textContent = group.name;
      const count = document.createElement("small");
      count.textContent = group.count.toLocaleString("en");
      button.append(swatch, name, count);
      button.addEventListener("click", () => {
        const { hidden } = colouring;
        if (!hidden.delete(group.index)) hidden.add(group.index);
        button.setAttribute("aria-pressed", String(!hidden.has(group.index)));
        hideTip();
        redraw();
      });
      const point = (to) => () => { emphasis = to; redraw(); };
      button.addEventListener("pointerenter", point(group.index));
      button.addEventListener("pointerleave", point(null));
      list.append(button);
    });
  }

  // All rows whose protein or field holds the words; a name that is exactly so comes alone.
  function look() {
    const words = search.value.trim().toLowerCase();
    stepped = -1;
    hideTip();
    if (words === "") {
      found = null;
      status.textContent = "";
      redraw();
      return;
    }
    const names = ["protein", "field"].map(column);
    const exact = names.some(({ table }) => table.some((name) => name.toLowerCase() === words));
    const fits = exact ? (name) => name === words : (name) => name.includes(words);
    const hits = names.map(({ table }) => table.map((name) => fits(name.toLowerCase())));
    const rows = [];
    const proteins = new Set();
    for (let i = 0; i < data.count; i += 1) {
      if (names.some(({ code }, n) => hits[n][code[i]])) {
        rows.push(i);
        proteins.add(text("protein", i));
      }
    }
    found = Uint32Array.from(rows);
    const first = [...proteins].slice(0, 3).join(", ") + (proteins.size > 3 ? ", ..." : "");
    status.textContent = rows.length === 0
      ? "No protein and no field has such a name."
      : `${rows.length.toLocaleString("en")} ${rows.length === 1 ? "point" : "points"} of ${first}`
        + "; Enter shows them one by one.";
    redraw();
  }

  function step() {
    if (found === null || found.length === 0) return;
    stepped = (stepped + 1) % found.length;
    const { x, y } = spot(found[stepped]);
    if (x < 0 || y < 0 || x > size.width || y > size.height) reset();
    showTip(found[stepped]);
  }

  const choose = get("map-colour");
  colourings.forEach(({ name }, index) => choose.add(new Option(name, index)));
  choose.addEventListener("change", () => {
    colouring = colourings[Number(choose.value)];
    emphasis = null;
    legend();
    redraw();
  });
  get("map-colour-row").hidden = colourings.length === 1;

  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); step(); }
    if (event.key === "Escape") { search.value = ""; look(); }
  });

  const actions = { in: () => zoom(1.5), out: () => zoom(1 / 1.5), reset, save };
  for (const button of document.querySelectorAll("#map-buttons button")) {
    button.addEventListener("click", actions[button.dataset.action]);
  }

  const keys = {
    "+": actions.in, "=": actions.in, "-": actions.out, "0": reset, Escape: hideTip,
    ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0),
    ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });

  let held = null; // where the pointer that drags was
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.clientX, y: event.clientY };
    if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => { held = null; });
  }
  canvas.addEventListener("pointermove", (event) => {
    if (held !== null && event.pointerType === "mouse") {
      pan(event.clientX - held.x, event.clientY - held.y);
      held = { x: event.clientX, y: event.clientY };
      return;
    }
    const i = nearest(event.offsetX, event.offsetY);
    if (i < 0) hideTip();
    else showTip(i);
  });
  canvas.addEventListener("click", (event) => { // a finger has no hover
    const i = nearest(event.offsetX, event.offsetY);
    if (i >= 0) showTip(i);
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), event.offsetX, event.offsetY);
  }, { passive: false });

  new ResizeObserver(() => {
    const ratio = window.devicePixelRatio || 1;
    const before = size.width === 0 ? null : fitted();
    size = { width: canvas.clientWidth, height: canvas.clientHeight, ratio };
    canvas.width = Math.round(size.width * ratio);
    canvas.height = Math.round(size.height * ratio);
    const after = fitted();
    // What was zoomed to stays zoomed to, about the middle of the data.
    const by = before === null ? 1 : view.scale / before.scale;
    view = after;
    if (by !== 1) zoom(by);
    draw();
  }).observe(canvas);

  legend();
  window.zarrlocMap = {
    place: (i) => {
      const box = canvas.getBoundingClientRect();
      const { x, y } = spot(i);
      return { x: box.x + x, y: box.y + y };
    },
    row: (i) => row[i],
    shown: () => layers().reduce((sum, { rows }) => sum + rows.length, 0),
  };
})();
